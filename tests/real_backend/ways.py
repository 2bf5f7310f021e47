"""Ways to run the same sequences that must give the same tokens and logits; `WAYS` is the list to extend.

A way takes a spec, its weights, prompts and a number of tokens, and answers one trace a prompt, in order.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from airi_sim.core.types import Copies, Copy
from airi_sim.models.spec import ModelSpec
from real_backend import model as models
from real_backend.attention import PagedAttention
from real_backend.batch import Segment, arrange, pack
from real_backend.kv import PagedKV

SIZE = 4
BLOCKS = 96


@dataclass
class Trace:
    """A sequence: its prompt, what was generated, and the logits [generated, vocab] that each token was the best of."""

    prompt: list[int]
    tokens: list[int]
    logits: Tensor


Way = Callable[[ModelSpec, Mapping[str, Tensor], Sequence[list[int]], int], list[Trace]]


@torch.inference_mode()
def forward(model: models.Model, cache: PagedKV, segments: Sequence[Segment]) -> list[Tensor]:
    """Logits [tokens, vocab] of each segment of one pass, in the order of the segments."""
    order = arrange(segments)
    batch = pack([segments[index] for index in order], cache.block_size, model)
    states = models.hidden_states(model, batch.tokens, batch.positions, PagedAttention(model.spec, cache, batch))
    parts = torch.split(model.head(states), [len(segments[index].tokens) for index in order])
    by_segment = dict(zip(order, parts, strict=True))
    return [by_segment[index] for index in range(len(segments))]


@dataclass
class Live:
    """A sequence under way: known tokens, of which `done` are in the cache."""

    prompt: int
    known: list[int]
    table: list[int] = field(default_factory=list)
    done: int = 0
    rows: list[Tensor] = field(default_factory=list)

    @property
    def left(self) -> int:
        return len(self.known) - self.done

    @property
    def generated(self) -> int:
        return len(self.known) - self.prompt


class Desk:
    """A model with a cache, and passes composed by hand. Unused memory holds large numbers, never read if all is well.

    `dtype` is that of weights, KV and activations.
    """

    def __init__(self, spec: ModelSpec, tensors: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> None:
        self.model = models.build(spec, tensors, "cpu", dtype)
        self.cache = PagedKV(spec, BLOCKS, SIZE, torch.device("cpu"), dtype, host_blocks=BLOCKS)
        self.free = list(range(BLOCKS, 0, -1))

    def open(self, prompt: list[int]) -> Live:
        return Live(len(prompt), list(prompt))

    def step(self, work: Sequence[tuple[Live, int]]) -> None:
        """One pass: so many tokens of each sequence; those with no known token left get their next one."""
        for live, count in work:
            while len(live.table) * SIZE < live.done + count:
                live.table.append(self.free.pop())
        segments = [
            Segment(live.done, array("q", live.known[live.done : live.done + count]), live.table, live.left == count)
            for live, count in work
        ]
        for (live, count), logits in zip(work, forward(self.model, self.cache, segments), strict=True):
            live.done += count
            if not live.left:
                live.rows.append(logits[-1].float())
                live.known.append(int(logits[-1].argmax()))

    def close(self, live: Live) -> None:
        """Give its blocks back, with garbage in them."""
        for layer in self.cache.layers:
            layer[live.table] = 1e4
        self.free += live.table
        live.table, live.done = [], 0

    def swap_out(self, live: Live, host: Sequence[int]) -> Copy:
        """Its KV to these blocks of the host; none is left on the device. Returns the way back, without a target."""
        table, live.table = live.table, []
        self.cache.copy(Copies(out=[Copy(None, len(table), table, host)]))
        for layer in self.cache.layers:
            layer[table] = 1e4
        self.free = [*reversed(table), *self.free]  # others are taken first
        return Copy(None, len(table), host)

    def swap_in(self, live: Live, copy: Copy) -> None:
        """Back into blocks that lie anyhow."""
        live.table = [self.free.pop() for _ in range(copy.blocks)]
        self.cache.copy(Copies(back=[copy._replace(target=live.table)]))

    def drain(self, lives: Sequence[Live], outputs: int, budget: int = 1 << 30) -> list[Trace]:
        """First come first served, at most `budget` tokens a pass, until each has `outputs` tokens."""
        while active := [live for live in lives if live.generated < outputs]:
            left, work = budget, []
            for live in active:
                if count := min(live.left, left):
                    work.append((live, count))
                    left -= count
            self.step(work)
        return [Trace(live.known[: live.prompt], live.known[live.prompt :], torch.stack(live.rows)) for live in lives]


def alone(spec: ModelSpec, tensors: Mapping[str, Tensor], prompts: Sequence[list[int]], outputs: int) -> list[Trace]:
    """One after another, each prompt in one pass."""
    desk, traces = Desk(spec, tensors), []
    for prompt in prompts:
        live = desk.open(prompt)
        traces += desk.drain([live], outputs)
        desk.close(live)
    return traces


def batch(spec: ModelSpec, tensors: Mapping[str, Tensor], prompts: Sequence[list[int]], outputs: int) -> list[Trace]:
    """All together, a new one every other pass: prompts beside decodes of unlike context."""
    desk = Desk(spec, tensors)
    lives = [desk.open(prompt) for prompt in prompts]
    for count in range(1, len(lives)):
        for _ in range(2):
            desk.step([(live, live.left) for live in lives[:count] if live.generated < outputs])
    return desk.drain(lives, outputs)


def chunked(spec: ModelSpec, tensors: Mapping[str, Tensor], prompts: Sequence[list[int]], outputs: int) -> list[Trace]:
    """At most 7 tokens a pass."""
    desk = Desk(spec, tensors)
    return desk.drain([desk.open(prompt) for prompt in prompts], outputs, budget=7)


def preempted(
    spec: ModelSpec, tensors: Mapping[str, Tensor], prompts: Sequence[list[int]], outputs: int
) -> list[Trace]:
    """The last of those running loses its memory every third pass and is recomputed from its first token, in chunks."""
    desk = Desk(spec, tensors)
    lives = [desk.open(prompt) for prompt in prompts]
    for turn in range(3 * len(lives)):
        running = [live for live in lives if live.generated < outputs]
        if turn % 3 == 2 and running:
            desk.close(running[-1])
        if running:
            desk.step([(live, min(live.left, 11)) for live in running])
    return desk.drain(lives, outputs)


def prefix_hit(
    spec: ModelSpec, tensors: Mapping[str, Tensor], prompts: Sequence[list[int]], outputs: int
) -> list[Trace]:
    """Each prompt finds the whole blocks of it that another sequence computed, and starts after them."""
    desk, traces = Desk(spec, tensors), []
    for prompt in prompts:
        first, second = desk.open([*prompt, 1, 2, 3]), desk.open(prompt)
        desk.step([(first, first.left)])
        shared = (len(prompt) - 1) // SIZE
        second.table, second.done = first.table[:shared], shared * SIZE
        traces += desk.drain([second], outputs)
        second.table = second.table[shared:]
        desk.close(first)
        desk.close(second)
    return traces


def swapped(spec: ModelSpec, tensors: Mapping[str, Tensor], prompts: Sequence[list[int]], outputs: int) -> list[Trace]:
    """The last of those running goes to the host every third pass, half way through its prompt or later, and comes back
    two passes later into other blocks."""
    desk = Desk(spec, tensors)
    lives = [desk.open(prompt) for prompt in prompts]
    away: list[tuple[Live, Copy]] = []
    for turn in range(3 * len(lives)):
        running = [live for live in lives if live.generated < outputs and all(live is not gone for gone, _ in away)]
        if turn % 3 == 2 and running and running[-1].table:
            live = running.pop()
            host = range(BLOCKS - 1 - turn, BLOCKS - 1 - turn - len(live.table), -1)
            away.append((live, desk.swap_out(live, [*host])))
        if running:
            desk.step([(live, min(live.left, 11)) for live in running])
        if turn % 3 == 1 and away:
            desk.swap_in(*away.pop())
    for live, copy in away:
        desk.swap_in(live, copy)
    return desk.drain(lives, outputs)


def copied(spec: ModelSpec, tensors: Mapping[str, Tensor], prompts: Sequence[list[int]], outputs: int) -> list[Trace]:
    """Each prompt is in memory to its last token: all but that are read where they lie or, in the last block, from a
    copy, while whoever computed them goes on with its own."""
    desk, traces = Desk(spec, tensors), []
    for prompt in prompts:
        first, second = desk.open(prompt), desk.open(prompt)
        desk.step([(first, first.left)])
        whole, fresh = first.table[:-1], desk.free.pop()
        desk.cache.copy(Copies(inside=[Copy(None, 1, first.table[-1:], [fresh])]))
        second.table, second.done = [*whole, fresh], len(prompt) - 1
        one, two = desk.drain([first, second], outputs)
        assert one.tokens == two.tokens
        traces.append(two)
        second.table = second.table[len(whole) :]
        desk.close(first)
        desk.close(second)
    return traces


WAYS: dict[str, Way] = {
    "alone": alone,
    "batch": batch,
    "chunked": chunked,
    "preempted": preempted,
    "prefix_hit": prefix_hit,
    "swapped": swapped,
    "copied": copied,
}

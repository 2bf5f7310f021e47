"""Calibration samples: random passes on scratch memory, timed by the same clock as the passes that count.

Speed on a shared machine drifts by tens of percent over minutes, so a profile measured before a run misses it.
Co-calibration runs random passes between the measured ones and fits the profile from those alone. Most of them
resemble the pass that was just measured, so that the fit is best where the run spends its time and the samples cost
no more than the run itself; the others cover the whole range that the run uses.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from airi_sim.core.types import Plan
from real_backend.batch import Segment
from real_backend.clock import Clock, Stopwatch
from real_backend.runner import Runner

if TYPE_CHECKING:
    from airi_sim.hardware.deployment import Deployment
    from real_backend.backend import TorchBackend

DECODE_SHARE, PREFILL_SHARE = 0.55, 0.15  # the rest is mixed
MORE_CHUNKS = 4  # a prefill takes up to so many more chunks than its tokens need
MARGIN = 1.25  # shapes reach a little beyond what the run has used, so that its largest pass is not extrapolated
WARM_UP = 3
EVERY = 2  # a sample after each second pass that only decodes; prompts are rarer and vary more: after each
ALIKE_SHARE = 0.75  # of the samples beside a run
SPREAD = 0.4  # a resembling shape has sizes from exp(-SPREAD) to exp(SPREAD) times those of the pass


class Sample(NamedTuple):
    """A pass as the runtime would describe it, and how long it took (seconds)."""

    plan: Plan
    seconds: float


class Probe(Protocol):
    """Takes samples for one executor."""

    samples: list[Sample]

    def follow(self, plan: Plan) -> None:
        """A measured pass is over: note what range the run uses, and now and then take a sample."""
        ...

    def take(self) -> None:
        """Take one sample from the whole range noted so far."""
        ...

    def widen(self) -> None:
        """Use the whole range that the server's limits allow."""
        ...


@dataclass(frozen=True)
class Limits:
    """The largest pass of a server: decoding sequences, tokens of one sequence, new prompt tokens, KV blocks (0: no KV
    cache)."""

    sequences: int
    context: int
    tokens: int
    blocks: int = 0


class Range:
    """How far the passes of a run have gone, within the limits of its server."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.sequences = self.context = self.tokens = self.blocks = 1

    def note(self, sequences: int, context: int, tokens: int, blocks: int = 0) -> None:
        """A pass had so many decodes, its longest sequence so many tokens; it processed so many prompt tokens and its
        decodes held so many KV blocks."""
        limits = self.limits
        self.sequences = _reach(self.sequences, sequences, limits.sequences)
        self.context = _reach(self.context, context, limits.context)
        self.tokens = _reach(self.tokens, tokens, limits.tokens)
        self.blocks = _reach(self.blocks, blocks, limits.blocks)

    def widen(self) -> None:
        """To the limits."""
        limits = self.limits
        self.sequences, self.context = limits.sequences, limits.context
        self.tokens, self.blocks = limits.tokens, limits.blocks


def _reach(known: int, seen: int, limit: int) -> int:
    return max(known, min(limit, int(seen * MARGIN) + 1))


class Shape(NamedTuple):
    """What a pass processes: contexts of its decodes, and (tokens before, tokens now) of its chunks."""

    contexts: tuple[int, ...]
    chunks: tuple[tuple[int, int], ...]

    def plan(self) -> Plan:
        """The plan with the numbers that a TokenServer would write."""
        return Plan(
            -1,
            0.0,
            [(None, new) for _, new in self.chunks],
            [],
            sequences=len(self.contexts),
            context=sum(self.contexts),
            longest=max(self.contexts, default=0),
            prefill_tokens=sum(new for _, new in self.chunks),
            prefill_attention=sum(new * (2 * before + new) for before, new in self.chunks),
            prefill_context=sum(before + new for before, new in self.chunks),
        )


def shape_of(plan: Plan) -> Shape:
    """What a plan with rows processes; decodes come first in them."""
    rows, n = plan.rows or [], plan.sequences
    return Shape(tuple(row.start for row in rows[:n]), tuple((row.start, row.tokens) for row in rows[n:]))


def log_uniform(random: np.random.Generator, most: int) -> int:
    """A whole number from 1 to `most`; each octave is as likely as the next."""
    return min(most, int(np.exp(random.uniform(0.0, np.log(most + 1)))))


def draw_shape(random: np.random.Generator, within: Range, block_size: int) -> Shape:
    """Decodes of varied number and context, prompt chunks with and without context, or both."""
    kind = random.random()
    decodes = kind < DECODE_SHARE or kind >= DECODE_SHARE + PREFILL_SHARE
    chunks = kind >= DECODE_SHARE
    return Shape(
        _contexts(random, within, block_size) if decodes else (),
        _chunks(random, within, block_size) if chunks else (),
    )


def alike(random: np.random.Generator, shape: Shape, within: Range, block_size: int) -> Shape:
    """A shape that resembles another one: about as many decodes with about such contexts, about such chunks."""
    count = min(about(random, len(shape.contexts)), within.sequences) if shape.contexts else 0
    picks = random.integers(len(shape.contexts) or 1, size=count)
    drawn = np.array([min(about(random, shape.contexts[i]), within.context) for i in picks], dtype=np.int64)
    return Shape(_that_fit(drawn, within, block_size), tuple(_alike_chunks(random, shape.chunks, within)))


def _alike_chunks(
    random: np.random.Generator, chunks: tuple[tuple[int, int], ...], within: Range
) -> Iterator[tuple[int, int]]:
    left = within.tokens
    for before, tokens in chunks:
        new = min(about(random, tokens), left, within.context)
        left -= new
        if new:
            yield (min(about(random, before), within.context - new) if before else 0, new)


def about(random: np.random.Generator, size: int) -> int:
    """A size that resembles another one, at least 1."""
    return max(1, round(size * float(np.exp(random.uniform(-SPREAD, SPREAD)))))


def _contexts(random: np.random.Generator, within: Range, block_size: int) -> tuple[int, ...]:
    longest = log_uniform(random, within.context)
    shortest = 1 + int((longest - 1) * random.random())
    drawn = random.integers(shortest, longest + 1, log_uniform(random, within.sequences))
    return _that_fit(drawn, within, block_size)


def _that_fit(contexts: np.ndarray, within: Range, block_size: int) -> tuple[int, ...]:
    """As many as the memory that the run uses can hold, at least one."""
    blocks = contexts // block_size + 1
    return tuple(contexts[blocks.cumsum() <= max(within.blocks, int(blocks[:1].sum()))].tolist())


def _chunks(random: np.random.Generator, within: Range, block_size: int) -> tuple[tuple[int, int], ...]:
    tokens = log_uniform(random, min(within.tokens, within.limits.blocks * block_size))
    least = -(-tokens // within.context)
    pieces = min(tokens, int(random.integers(least, least + MORE_CHUNKS)))
    cuts = [0, *sorted(random.choice(np.arange(1, tokens), pieces - 1, replace=False).tolist()), tokens]
    sizes = [min(stop - start, within.context) for start, stop in pairwise(cuts)]
    return tuple((_before(random, within, size), size) for size in sizes)


def _before(random: np.random.Generator, within: Range, tokens: int) -> int:
    """Context of a chunk: mostly none, as most prompts fit into one pass."""
    room = within.context - tokens
    return int(random.integers(0, room)) if room > 0 and random.random() < 0.4 else 0


class GenerateProbe:
    """Samples of a language model's passes, on a scratch cache of its own."""

    def __init__(self, runner: Runner, clock: Clock, limits: Limits, seed: int) -> None:
        self.runner = runner
        self.clock = clock
        self.range = Range(limits)
        self.random = np.random.default_rng(seed)
        self.samples: list[Sample] = []
        self.decoded = 0
        for _ in range(WARM_UP):
            self._measure(Shape((1,), ((0, 2),)))

    def follow(self, plan: Plan) -> None:
        longest = max(row.start + row.tokens for row in plan.rows or ())
        held = plan.context // self.runner.cache.block_size + plan.sequences
        self.range.note(plan.sequences, longest, plan.prefill_tokens, held)
        self.decoded += not plan.prefill_tokens
        if not plan.prefill_tokens and self.decoded % EVERY:
            return
        if self.random.random() < ALIKE_SHARE:
            self._sample(alike(self.random, shape_of(plan), self.range, self.runner.cache.block_size))
        else:
            self.take()

    def widen(self) -> None:
        self.range.widen()

    def take(self) -> None:
        self._sample(draw_shape(self.random, self.range, self.runner.cache.block_size))

    def _sample(self, shape: Shape) -> None:
        self.samples.append(Sample(shape.plan(), self._measure(shape)))

    def _measure(self, shape: Shape) -> float:
        segments = self._segments(shape)
        watch = Stopwatch(self.clock)
        self.runner.run(segments, watch)
        return watch.stop().seconds

    def _segments(self, shape: Shape) -> list[Segment]:
        """Sequences on blocks in random order, apart from each other as long as the scratch memory suffices."""
        size, blocks = self.runner.cache.block_size, self.runner.cache.kv_blocks
        order, used, segments = self.random.permutation(blocks) + 1, 0, []
        for before, new in (*((context, 1) for context in shape.contexts), *shape.chunks):
            need = -(-(before + new) // size)
            table = np.take(order, np.arange(used, used + need), mode="wrap").tolist()
            used += need
            segments.append(Segment(before, self._noise(new), table, sample=True))
        return segments

    def _noise(self, tokens: int) -> array[int]:
        return array("q", self.random.integers(self.runner.model.spec.vocab, size=tokens).tolist())


def calibrate(
    deployment: Deployment,
    backend: TorchBackend,
    samples: int = 300,
    seconds: float = 300.0,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """The profile of one pool on the device at hand: `samples` random passes within the limits of its server, fewer
    when they take more than `seconds` of wall time. `progress` is told how many were taken."""
    probe = backend.probe(deployment)
    probe.widen()
    end = perf_counter() + seconds
    while len(probe.samples) < samples and perf_counter() < end:
        probe.take()
        if progress is not None:
            progress(len(probe.samples))
    return backend.profile(deployment.name)

"""How much of a decode pass is the work that cannot be avoided: what `airi bench bench.cases=backend` measures.

The bound of a pass is the time of its own matrix products and attention calls alone: the same calls with the same
shapes, recorded in a pass, run again in the same process between two passes. Attention is run on keys and values that
are in the cache, as they are when a pass has just gathered them, which makes the bound as small as it can be; and once
more on those of each layer where they lie in memory, from where any pass has to read them.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from airi_sim.hardware.deployment import Deployment
from real_backend.batch import Segment
from real_backend.clock import Clock, Split, Stopwatch
from real_backend.library import Library
from real_backend.plain import compared
from real_backend.runner import Runner
from real_backend.sequences import Sequences

PARTS = {
    "_linear_pointwise.default": "gemm", "linear": "gemm", "matmul": "gemm", "bmm": "gemm", "_grouped_mm": "gemm",
    "scaled_dot_product_attention": "attention", "varlen_attn": "attention",
    "index_select": "gather", "index_copy_": "store",
}  # fmt: skip
"""What functions of torch belong to; those of VIEWS compute nothing, all others are norms, positions and sums."""
VIEWS = frozenset((
    "__get__", "__getitem__", "__len__", "chunk", "expand", "flatten", "numpy", "permute", "reshape", "split",
    "split_with_sizes", "transpose", "unsqueeze", "view",
))  # fmt: skip
OTHER = "norm_rope_sum"
FIGURES = ("gemm", "attention", "gather", "store", OTHER, "sampling", "prep", "python")
ALONE = (
    "gemm_alone", "attention_alone", "attention_from_memory", "share_of_bound", "share_from_memory", "python_share",
)  # fmt: skip
WARM_UP = 3
FORWARD = 1


class Calls(TorchFunctionMode):
    """Sees every call of torch in a pass, and keeps products and attention if asked to. `phase` counts the laps:
    preparation, forward, sampling."""

    def __init__(self, clock: Clock, keep: bool = False) -> None:
        super().__init__()
        self.clock = clock
        self.keep = keep
        self.phase = 0
        self.marks: list[tuple[int, str, Any, Any]] = []
        self.kept: dict[str, list[Callable[[], Any]]] = {"gemm": [], "attention": [], "from_memory": []}

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name, named = getattr(func, "__name__", ""), kwargs or {}
        if name in VIEWS:
            return func(*args, **named)
        part = PARTS.get(name, OTHER)
        first = self.clock.mark()
        result = func(*args, **named)
        self.marks.append((self.phase, part, first, self.clock.mark()))
        if self.keep and part in self.kept:
            self.kept[part].append(lambda: func(*args, **named))
        if self.keep and part == "attention":
            own = [each.clone() if isinstance(each, torch.Tensor) else each for each in args]
            self.kept["from_memory"].append(lambda: func(*own, **named))
        return result

    def seconds(self) -> dict[tuple[int, str], float]:
        """By phase and part."""
        found: dict[tuple[int, str], float] = defaultdict(float)
        for phase, part, first, last in self.marks:
            found[phase, part] += self.clock.seconds(first, last)
        return found


class Phases(Stopwatch):
    """A stopwatch that tells `calls` of its laps."""

    def __init__(self, clock: Clock, calls: Calls) -> None:
        super().__init__(clock)
        self.calls = calls

    def lap(self) -> None:
        super().lap()
        self.calls.phase += 1


class Efficiency:
    """The measurements for one pool of a backend. Sequences that finish after it was made are kept."""

    def __init__(self, library: Library, sequences: Sequences, clock: Clock, deployment: Deployment) -> None:
        self.library = library
        self.clock = clock
        self.deployment = deployment
        self.finished = sequences.finished = {}

    def split(self, context: int, turns: int) -> dict[str, float]:
        """`decode_split` of as many decodes as the pool has seats."""
        seats, size = self.deployment.max_num_seqs, self.deployment.block_size
        runner = self.library.runner(self.deployment, seats * -(-context // size))
        return decode_split(runner, self.clock, seats, context, turns, self.library.seed)

    def plain(self) -> dict[str, float] | None:
        """`plain.compared` over the finished sequences, in order of jobs."""
        sequences = [self.finished[job] for job in sorted(self.finished)]
        spec, library = self.library.spec(self.deployment), self.library
        return compared(spec, library.tensors(spec), sequences, self.clock, library.device)


class Turn(NamedTuple):
    """One turn: a pass, the same pass with its calls timed, and its products and attention alone (seconds)."""

    split: Split
    parts: dict[str, float]
    gemm_alone: float
    attention_alone: float
    attention_from_memory: float

    @property
    def share_of_bound(self) -> float:
        return (self.gemm_alone + self.attention_alone) / self.split.seconds

    @property
    def share_from_memory(self) -> float:
        return (self.gemm_alone + self.attention_from_memory) / self.split.seconds

    @property
    def python_share(self) -> float:
        return (self.parts["prep"] + self.parts["python"]) / self.split.seconds


def decode_split(runner: Runner, clock: Clock, batch: int, context: int, turns: int, seed: int) -> dict[str, float]:
    """Medians over `turns` of a pass of `batch` decodes whose contexts are `context` tokens: seconds of the pass, of
    each part of FIGURES, and of its products and attention alone; shares are of the pass of the same turn: of either
    bound, and of preparation with what the forward does between calls."""
    segments = decodes(runner, batch, context, seed)
    calls = record(runner, clock, segments, keep=True)
    taken = [turn(runner, clock, segments, calls) for _ in range(WARM_UP + turns)][WARM_UP:]
    found = {part: median(each.parts[part] for each in taken) for part in FIGURES}
    found["pass"] = median(each.split.seconds for each in taken)
    return found | {name: median(getattr(each, name) for each in taken) for name in ALONE}


def decodes(runner: Runner, batch: int, context: int, seed: int) -> list[Segment]:
    """`batch` sequences that get their token number `context`, on blocks in random order."""
    random = np.random.default_rng(seed)
    cache, width = runner.cache, -(-context // runner.cache.block_size)
    blocks = (random.permutation(cache.kv_blocks) + 1).tolist()
    tokens = random.integers(runner.model.spec.vocab, size=batch).tolist()
    return [
        Segment(context - 1, array("q", [token]), blocks[row * width : (row + 1) * width], True)
        for row, token in enumerate(tokens)
    ]


def record(runner: Runner, clock: Clock, segments: Sequence[Segment], keep: bool = False) -> Calls:
    """One pass, with every call it makes."""
    with Calls(clock, keep) as calls:
        runner.run(segments, Phases(clock, calls))
    return calls


def turn(runner: Runner, clock: Clock, segments: Sequence[Segment], recorded: Calls) -> Turn:
    """A pass, the pass with its calls timed, and what was `recorded` alone."""
    watch = Stopwatch(clock)
    runner.run(segments, watch)
    split = watch.stop()
    timed = record(runner, clock, segments).seconds()
    gemm = alone(clock, recorded.kept["gemm"])
    attention = sum(alone(clock, [call, call], warm=1) for call in recorded.kept["attention"])
    return Turn(split, parts_of(split, timed), gemm, attention, alone(clock, recorded.kept["from_memory"]))


@torch.inference_mode()
def alone(clock: Clock, calls: Sequence[Callable[[], Any]], warm: int = 0) -> float:
    """Seconds of calls one after the other, without the first `warm` ones."""
    for call in calls[:warm]:
        call()
    first = clock.mark()
    for call in calls[warm:]:
        call()
    return clock.seconds(first, clock.mark())


def parts_of(split: Split, timed: Mapping[tuple[int, str], float]) -> dict[str, float]:
    """Where the seconds of a pass went. `python` is what remains of the forward: views, and the calls themselves."""
    forward = {part: seconds for (phase, part), seconds in timed.items() if phase == FORWARD}
    head = sum(seconds for (phase, part), seconds in timed.items() if phase > FORWARD and part == "gemm")
    found = {part: forward.get(part, 0.0) for part in ("gemm", "attention", "gather", "store", OTHER)}
    found["python"] = split.forward_s - sum(found.values())
    return found | {"gemm": found["gemm"] + head, "sampling": split.sample_s - head, "prep": split.prep_s}

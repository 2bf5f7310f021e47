"""Speculative decoding with a draft model (Leviathan et al. 2023, Chen et al. 2023).

A pass: the draft proposes `tokens` tokens for every decoding sequence, one pass each; the target checks them all in one
pass, beside the prompt chunks of the plan. Both models keep their KV in the same blocks, so whatever the runtime does
with a block (a prefix hit, a preemption) holds for both. What was written for tokens that are not accepted is
overwritten by those that take their place.

To the target the tokens that it checks are a chunk of the sequence, of which every token asks for the next one.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import Script
from airi_sim.core.types import Job, Plan
from airi_sim.hardware.deployment import Deployment
from airi_sim.hardware.speculation import DRAFT, chunks_of, drafting
from real_backend.batch import Segment
from real_backend.calibrate import GenerateProbe, Limits, Sample, Shape
from real_backend.choice import Asks, Choice, choice_of
from real_backend.clock import Clock, Stopwatch
from real_backend.executor import GenerateWork, rows_of
from real_backend.runner import Runner

if TYPE_CHECKING:
    from real_backend.kinds import Parts


class Speculator:
    """A target and its draft; their caches have the same blocks. `marks` are clock marks of the last pass: its begin
    and the end of each pass of the draft."""

    def __init__(self, target: Runner, draft: Runner, tokens: int, choice: Choice, clock: Clock) -> None:
        self.target, self.draft, self.tokens, self.choice, self.clock = target, draft, tokens, choice, clock
        self.marks: list[Any] = []

    def run(
        self, decodes: Sequence[Segment], chunks: Sequence[Segment], jobs: Sequence[int], watch: Stopwatch
    ) -> tuple[list[list[int]], dict[int, int]]:
        """One pass; `jobs` are the ids of decodes and chunks. Each decode brings its last two tokens, of which the KV
        of the first is known. Returns the tokens of each decode, and those of chunks that asked, by their index."""
        self.choice.begin()
        ids = np.fromiter(jobs, np.int64, len(jobs))
        ends = np.fromiter((one.start + len(one.tokens) for one in (*decodes, *chunks)), np.int64, len(jobs))
        asks, prompts = Asks(ids[: len(decodes)], ends[: len(decodes)]), Asks(ids[len(decodes) :], ends[len(decodes) :])
        drafts = self._drafts(decodes, chunks, asks)
        checks = [
            Segment(one.start + 1, array("q", (one.tokens[1], *draft)), one.table, True)
            for one, draft in zip(decodes, drafts.tolist(), strict=True)
        ]
        n = len(decodes)
        asking, logits = self.target.logits([*checks, *chunks], watch, whole=n)
        checked = self.choice.check(of_indexes(logits, asking, 0, n), drafts, asks) if n else []
        return checked, self._firsts(logits, asking, prompts, n)

    def _firsts(self, logits: Tensor, asking: list[int], asks: Asks, n: int) -> dict[int, int]:
        """Tokens after prompts, by index of the chunk; the first `n` segments are decodes."""
        found = [index - n for index in asking if index >= n]
        if not found:
            return {}
        own = of_indexes(logits, asking, n, n + len(asks.jobs))
        return dict(zip(found, self.choice.first(own, Asks(asks.jobs[found], asks.places[found])), strict=True))

    def _drafts(self, decodes: Sequence[Segment], chunks: Sequence[Segment], asks: Asks) -> np.ndarray:
        """[decodes, tokens]. The first pass of the draft takes in the chunks, too, and both known tokens of a decode:
        of the one before the last it has no KV if all its proposals were accepted."""
        quiet = [chunk._replace(sample=False) for chunk in chunks]
        first = [segment for one in decodes for segment in _split(one)]
        self.marks = [self.clock.mark()]
        found = [self._step([*first, *quiet], len(decodes), asks)]
        for done in range(1, self.tokens if decodes else 0):
            step = [
                Segment(one.start + 1 + done, array("q", [token]), one.table, True)
                for one, token in zip(decodes, found[-1], strict=True)
            ]
            found.append(self._step(step, len(decodes), asks.later(done)))
        return np.array(found, np.int64).T if decodes else np.empty((0, self.tokens), np.int64)

    def _step(self, segments: Sequence[Segment], asking: int, asks: Asks) -> list[int]:
        """One pass of the draft: the next token of each decode."""
        _, logits = self.draft.logits(segments, Stopwatch(self.clock))  # single tokens stay in order
        tokens = self.choice.propose(logits, asks) if asking else []
        self.marks.append(self.clock.mark())
        return tokens


def _split(one: Segment) -> tuple[Segment, Segment]:
    return (
        Segment(one.start, one.tokens[:1], one.table, False),
        Segment(one.start + 1, one.tokens[1:], one.table, True),
    )


def of_indexes(logits: Tensor, asking: Sequence[int], first: int, stop: int) -> Tensor:
    """The rows of `logits` that belong to the indexes from `first` up to `stop`, where row i is of `asking[i]`."""
    rows = [row for row, index in enumerate(asking) if first <= index < stop]
    return logits if len(rows) == len(asking) else logits[rows]


class SpeculativeWork(GenerateWork):
    """Prompt chunks and speculating decodes of a language model; `advanced` is of the plan committed last."""

    def __init__(self, speculator: Speculator, script: Script, sequences: Any) -> None:
        super().__init__(speculator.target, script, sequences)
        self.speculator = speculator
        self.advanced: dict[Job, int] = {}

    def run(self, plan: Plan, watch: Stopwatch) -> Any:
        rows, n = rows_of(plan), plan.sequences
        decodes = [self.sequences.segment(row._replace(start=row.start - 1, tokens=2)) for row in rows[:n]]
        chunks = [self.sequences.segment(row) for row in rows[n:]]
        return self.speculator.run(decodes, chunks, [row.job.id for row in rows], watch)

    def commit(self, plan: Plan, found: Any) -> list[Job]:
        rows, (decoded, firsts) = rows_of(plan), found
        self.advanced, stopped = {}, []
        for row, tokens in zip(rows, decoded, strict=False):
            taken, over = self._take(row.job, tokens)
            self.advanced[row.job] = taken
            if over:
                stopped.append(row.job)
        for index, token in firsts.items():
            job = rows[len(decoded) + index].job
            if self.sequences.extend(job, token):
                stopped.append(job)
        return stopped

    def _take(self, job: Job, tokens: Sequence[int]) -> tuple[int, bool]:
        """As many tokens as the job still emits, and whether it stops with them."""
        for taken, token in enumerate(tokens, 1):
            if self.sequences.extend(job, token):
                return taken, True
        return len(tokens), False


class SpeculativeProbe(GenerateProbe):
    """Samples of speculating passes: those of the target in `samples`, those of the draft in `beside`, each described
    as the pass it is, so that the cost of either model is fitted as always."""

    def __init__(self, speculator: Speculator, clock: Clock, limits: Limits, seed: int) -> None:
        self.speculator = speculator
        self.beside: dict[str, list[Sample]] = {DRAFT: []}
        super().__init__(speculator.target, clock, limits, seed)

    def _sample(self, shape: Shape) -> None:
        seconds, plan, k = self._measure(shape), shape.plan(), self.speculator.tokens
        marks, between = self.speculator.marks, self.clock.seconds
        self.samples.append(Sample(chunks_of(plan, k), seconds - between(marks[0], marks[-1])))
        for done, (begin, end) in enumerate(pairwise(marks)):
            self.beside[DRAFT].append(Sample(drafting(plan, done), between(begin, end)))

    def _measure(self, shape: Shape) -> float:
        k, n = self.speculator.tokens, len(shape.contexts)
        longer = Shape(tuple(context + k for context in shape.contexts), shape.chunks)
        segments = self._segments(longer)
        decodes = [
            Segment(context - 1, self._noise(2), one.table, True)
            for one, context in zip(segments[:n], shape.contexts, strict=True)
        ]
        watch = Stopwatch(self.clock)
        self.speculator.run(decodes, segments[n:], range(len(segments)), watch)
        return watch.stop().seconds


def speculator(parts: Parts, deployment: Deployment, kv_blocks: int) -> Speculator:
    """The two models of a pool with `kv_blocks` of their own; BadInput for what cannot speculate."""
    what = deployment.speculation
    assert what is not None
    if deployment.tp > 1:
        raise BadInput(f"pool '{deployment.name}' speculates, which takes one device a replica here: set pool.tp=1.")
    if deployment.model is not None and deployment.model.vision:
        raise BadInput(
            f"pool '{deployment.name}' cannot speculate with '{deployment.model.name}': a draft model reads no images "
            "here; leave out server.speculation, or take a model without a vision tower."
        )
    library, alone = parts.library, replace(deployment, speculation=None)
    target, draft = (library.runner(one, kv_blocks) for one in (alone, replace(alone, model=what.draft)))
    return Speculator(target, draft, what.tokens, choice_of(what, parts.seed), parts.timer)


def speculate(parts: Parts, deployment: Deployment, script: Script) -> SpeculativeWork:
    """The work of a pool that speculates."""
    return SpeculativeWork(speculator(parts, deployment, deployment.kv_blocks), script, parts.sequences)


def speculative_probe(parts: Parts, deployment: Deployment, limits: Limits) -> SpeculativeProbe:
    """What takes its calibration samples, which stay as far from its limits as the drafted tokens reach."""
    assert deployment.speculation is not None
    shorter = replace(limits, context=max(1, limits.context - deployment.speculation.tokens))
    blocks = parts.library.scratch_blocks(deployment, limits.blocks)
    return SpeculativeProbe(speculator(parts, deployment, blocks), parts.timer, shorter, parts.seed)

"""Calibration samples of what swap and copy on write cost: copies of whole KV blocks, timed alone."""

from __future__ import annotations

from airi_sim.core.types import Copies, Copy, Plan
from airi_sim.hardware.storage import COPY, copies_as_plan
from real_backend.calibrate import WARM_UP, GenerateProbe, Limits, Sample, log_uniform
from real_backend.clock import Clock
from real_backend.runner import Runner

EVERY = 8
"""Without a run to follow, one sample of copies for so many passes."""
FEW = 4


class CopyingProbe(GenerateProbe):
    """Samples of passes, and in `beside` of copies: some blocks one way, between random blocks of the scratch memory
    and neighbours on the host, or within the scratch memory. A few are taken at once, should a run copy nothing."""

    def __init__(self, runner: Runner, clock: Clock, limits: Limits, seed: int) -> None:
        self.beside: dict[str, list[Sample]] = {COPY: []}
        super().__init__(runner, clock, limits, seed)
        self.most = FEW
        for _ in range(WARM_UP + FEW):
            self.copy()
        del self.beside[COPY][:WARM_UP]

    def follow(self, plan: Plan) -> None:
        super().follow(plan)
        if plan.copies is not None:
            self.most = max(self.most, *[copy.blocks for part in plan.copies for copy in part])
            self.copy()

    def widen(self) -> None:
        super().widen()
        self.most = self.range.context // self.runner.cache.block_size

    def take(self) -> None:
        super().take()
        if not len(self.samples) % EVERY:
            self.copy()

    def copy(self) -> None:
        """Take one sample of up to the most blocks that a job had."""
        copies = self._drawn(log_uniform(self.random, self.most))
        begin = self.clock.mark()
        self.runner.cache.copy(copies)
        seconds = self.clock.seconds(begin, self.clock.mark())
        self.beside[COPY].append(Sample(copies_as_plan(copies), seconds))

    def _drawn(self, blocks: int) -> Copies:
        cache, host = self.runner.cache, len(self.runner.cache.host[0])
        here = [int(i) + 1 for i in self.random.permutation(cache.kv_blocks)]
        way = int(self.random.integers(3)) if host else 1
        blocks = min(blocks, cache.kv_blocks // 2, *([host] if way != 1 else []))
        if way == 1:
            return Copies(inside=[Copy(None, blocks, here[:blocks], here[blocks : 2 * blocks])])
        first = int(self.random.integers(host - blocks + 1))
        there = range(first, first + blocks)
        if way == 0:
            return Copies(out=[Copy(None, blocks, here[:blocks], there)])
        return Copies(back=[Copy(None, blocks, there, here[:blocks])])

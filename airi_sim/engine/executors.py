"""Executors of the simulated world: a cost model, or recorded durations. They alone know true output lengths."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from math import inf, sqrt
from typing import Any

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import CostModel, Script
from airi_sim.core.types import Ended, Outcome, Plan
from airi_sim.runtime.hooks import claims


class Lane:
    """When the decoding jobs of one lane stop: a heap of (pass, version, job) on the executor's own pass counter.
    Entries of another version than the job's are void."""

    __slots__ = ("heap", "passes")

    def __init__(self) -> None:
        self.heap: list[tuple[int, int, Any]] = []
        self.passes = 0


class Stops:
    """Who stops when, for executors that do not generate text themselves.

    `passes` of the plan in flight, and seconds of the `first` of them where there are several.
    """

    def __init__(self, script: Script, lanes: int = 1) -> None:
        self.length = script.output_tokens
        self.lanes = [Lane() for _ in range(lanes)]
        self.passes = 1
        self.first = 0.0

    def left(self, job: Any) -> int:
        """Output tokens a job will still emit."""
        ask = self.length  # a bound method is called faster from a local
        length = ask(job)
        return (length if length < job.budget else job.budget) - job.out

    def join(self, plan: Plan) -> None:
        """Jobs that decode without a prompt from this plan on (resumed, handed over)."""
        lane = self.lanes[plan.lane]
        for job in plan.joins:
            heappush(lane.heap, (lane.passes + self.left(job), job.version, job))

    def finish(self, plan: Plan, now: float) -> Ended:
        """A plan is over: who stopped with it."""
        passes, lane = self.passes, self.lanes[plan.lane]
        heap = lane.heap
        stopped = []
        if plan.sequences:
            lane.passes = done = lane.passes + passes
            while heap and heap[0][0] <= done:
                _, version, job = heappop(heap)
                if job.version == version:
                    stopped.append(job)
        for job in plan.ends:
            left = self.left(job) - 1
            if left <= 0:
                stopped.append(job)
            else:
                heappush(heap, (lane.passes + left, job.version, job))
        return passes, stopped, self.first if passes > 1 else now - plan.start, None, ""


class CostExecutor(Stops):
    """A TokenServer's plans by a cost model: k equal passes in closed form, cut at the boundary after an arrival.

    `first` and `step` are those of the plan in flight; where several are, each has one pass.
    """

    detailed = False

    def __init__(self, cost: CostModel, script: Script, lanes: int = 1) -> None:
        super().__init__(script, lanes)
        self.cost = cost
        self.ranks = getattr(cost, "needs_longest", False)
        self.line: Any = getattr(cost, "line" if claims(cost, "line", "affine") else "affine")
        self.under_way = 1
        self.step = 0.0
        self.seconds = -1.0

    def start(self, plan: Plan, now: float) -> float:
        line = self.line
        first, step, valid = line(plan)
        if plan.joins:
            self.join(plan)
        passes = plan.repeat
        if passes == 1:
            self.passes = 1
            return now + first
        lane = self.lanes[0]
        heap = lane.heap
        while heap and heap[0][2].version != heap[0][1]:
            heappop(heap)
        if heap and heap[0][0] - lane.passes < passes:
            passes = heap[0][0] - lane.passes
        if valid < passes:
            passes = valid
        if plan.until < inf:
            passes = min(passes, boundary(first, step, plan.until - now))
        self.passes, self.first, self.step, self.seconds = passes, first, step, -1.0
        return now + (passes * first + step * (passes * (passes - 1) * 0.5))

    def cut(self, plan: Plan, now: float, more: int = 0) -> float | None:
        if self.passes == 1:
            return None
        passes = self._under_way(now - plan.start) + more
        if passes >= self.passes:
            return None
        self.passes = passes
        return plan.start + (passes * self.first + self.step * (passes * (passes - 1) * 0.5))  # `total`, without a call

    def progress(self, plan: Plan, now: float) -> int:
        if self.passes == 1:
            return 0
        return min(self._under_way(now - plan.start), self.passes) - 1

    def _under_way(self, seconds: float) -> int:
        """Which pass (from 1) of the plan in flight runs after so many seconds; remembered, because an arrival that
        looks how far the plan has come often cuts it, too."""
        if seconds != self.seconds:
            self.seconds, self.under_way = seconds, boundary(self.first, self.step, seconds)
        return self.under_way

    def spent(self, plan: Plan, passes: int) -> tuple[float, float]:
        """Seconds of the first pass and of the first `passes` passes of the plan in flight."""
        return self.first, total(self.first, self.step, passes)


def total(first: float, step: float, passes: int) -> float:
    """Seconds of `passes` passes of which pass i takes first + i*step."""
    return passes * first + step * (passes * (passes - 1) * 0.5)


def boundary(first: float, step: float, seconds: float) -> int:
    """The least number of passes that takes longer than `seconds`: the end of the pass in flight at that moment."""
    if seconds < 0:
        return 1
    half = first - 0.5 * step
    passes = int(2 * seconds / (half + sqrt(half * half + 2 * step * seconds))) if seconds else 0
    if passes < 1:
        passes = 1
    while passes * first + step * (passes * (passes - 1) * 0.5) <= seconds:  # `total`, without a call
        passes += 1
    while passes > 1 and total(first, step, passes - 1) > seconds:
        passes -= 1
    return passes


class ServiceExecutor:
    """Plans of a BatchServer, SlotServer or Link by a cost model: one pass, everybody stops."""

    detailed = False

    def __init__(self, cost: CostModel) -> None:
        self.affine = cost.affine

    def start(self, plan: Plan, now: float) -> float:
        return now + self.affine(plan).first

    def cut(self, plan: Plan, now: float, more: int = 0) -> float | None:
        return None

    def progress(self, plan: Plan, now: float) -> int:
        return 0

    def finish(self, plan: Plan, now: float) -> Outcome:
        return Outcome(1, [job for job, _ in plan.slices], now - plan.start)


class ReplayExecutor:
    """Recorded durations, pass by pass, in the order in which the server made its plans."""

    detailed = ranks = False

    def __init__(self, name: str, durations: Iterator[float], stops: Any) -> None:
        self.name = name
        self.durations = durations
        self.stops = stops
        self.seconds: dict[int, float] = {}

    def start(self, plan: Plan, now: float) -> float:
        if self.stops is not None and plan.joins:
            self.stops.join(plan)
        seconds = next(self.durations, None)
        if seconds is None:
            raise ReplayEnded(f"{self.name} makes more plans than were recorded: the decisions differ.")
        self.seconds[id(plan)] = seconds
        return now + seconds

    def cut(self, plan: Plan, now: float, more: int = 0) -> float | None:
        return None

    def progress(self, plan: Plan, now: float) -> int:
        return 0

    def finish(self, plan: Plan, now: float) -> Ended:
        seconds = self.seconds.pop(id(plan))
        if self.stops is None:
            return Outcome(1, [job for job, _ in plan.slices], seconds)
        passes, stopped, _, advanced, failed = self.stops.finish(plan, now)
        return passes, stopped, seconds, advanced, failed


class ReplayEnded(BadInput):
    """A replay asked for more passes than were measured."""

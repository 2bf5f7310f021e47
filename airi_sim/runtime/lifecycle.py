"""What can happen to a replica and its jobs besides running: cancellation, death, and moving jobs with their KV."""

from __future__ import annotations

from collections.abc import Callable

from airi_sim.core.protocols import Queue
from airi_sim.core.types import Outcome, Plan
from airi_sim.runtime.draft import Drafting
from airi_sim.runtime.job import LiveJob
from airi_sim.runtime.prefix import Pages, PrefixCache


class Lifecycle(Drafting):
    """The rare half of a TokenServer."""

    make_queue: Callable[[], Queue]
    progress: Callable[[Plan, float], int]
    jobs: dict[int, LiveJob]
    leaving: dict[int, LiveJob]
    incoming: dict[int, int]
    adopted: list[LiveJob]
    parted: list[LiveJob]
    inflight_tokens: int
    max_seats: int
    unit: int
    caching: bool
    detailed: bool
    index: int
    passes: int
    cut_wanted: bool
    up: bool
    ghosts: int

    def empty(self) -> None:
        """Nothing here: at the start, and after the server died."""
        self.jobs: dict[int, LiveJob] = {}
        self.running: dict[int, LiveJob] = {}
        self.paused: dict[int, LiveJob] = {}
        self.moving: dict[int, LiveJob] = {}
        self.incoming: dict[int, int] = {}
        self.leaving: dict[int, LiveJob] = {}
        self.adopted: list[LiveJob] = []
        self.parted: list[LiveJob] = []
        self.lane, self.partial = self.lanes[0], self.partials[0]
        self.free = self.blank = self.available = self.total
        self.cache = PrefixCache(self.unit) if self.caching else None
        self.pages = Pages(self.total, self.block, self.unit) if self.detailed else None
        self.decodes = False
        self.seats = self.budget = self.reserved = 0
        self.closed = self.preempted = False
        self.slices: list[tuple[LiveJob, int]] = []
        self.choices: list[tuple[int, str]] = []
        self.resumed: list[LiveJob] = []
        self.attention = self.context = self.ghosts = 0

    def end(self, job: LiveJob, status: str, now: float) -> None:
        """A running job is over, in whatever state it is."""
        del self.running[job.id]
        self._vacate(job)
        self._gone(job, status, now)

    def _gone(self, job: LiveJob, status: str, now: float) -> None:
        job.version += 1
        job.status, job.finished = status, now
        self.inflight_tokens -= job.prompt
        del self.jobs[job.id]

    def let_go(self, now: float) -> list[LiveJob]:
        """Jobs cancelled, or to be moved, while a plan was in flight."""
        leaving = [job for job in self.leaving.values() if job.id in self.running]
        self.leaving = {}
        gone = [job for job in leaving if job.moving is None]
        for job in leaving:
            if job.moving is not None:
                self.part(job)
            else:
                self.end(job, job.doomed, now)
        return gone

    def record(self, plan: Plan, outcome: Outcome, now: float) -> None:
        """A line of the plans table."""
        self.log.plans.append((
            self.name, plan.kind, plan.start, now, outcome.passes, plan.sequences, plan.prefill_tokens,
            plan.context + plan.prefill_context, self.total - self.free, len(self.jobs) - len(self.running),
            outcome.first_s, plan.lane,
        ))  # fmt: skip

    def cancel(self, job: LiveJob, reason: str, now: float) -> bool:
        """End a job; True if it is over now, False if that happens at the end of the pass in flight."""
        job.doomed = reason
        if self.flights:
            self.cut_wanted = True
        if job.id in self.running:
            if job.moving is not None:
                return False
            if self.flights:
                self.leaving[job.id] = job
                return False
            self.end(job, reason, now)
            return True
        self.queued_tokens -= job.tokens
        remove = getattr(self.queue, "remove", None)
        if remove is not None:
            remove(job, now)
        else:
            self.ghosts += 1
        self._gone(job, reason, now)
        return True

    def fail(self, now: float) -> list[LiveJob]:
        """The server dies: memory and queue are lost; returns its jobs, which keep the tokens they have streamed."""
        for plan in self.flights:
            plan.live = False
            self._abort(plan, now)
        self.flights = []
        self.decodes = self.up = False
        lost = list(self.jobs.values())
        for job in lost:
            if job.lane is not None:
                self.close_span(job)
                job.lane.leave(job)
            self._reset(job)
        for partial in self.partials:
            partial.clear()
        self.empty()
        self.queue = self.make_queue()
        self.queued_tokens = self.inflight_tokens = 0
        return lost

    def _abort(self, plan: Plan, now: float) -> None:
        passes = self.progress(plan, now)
        lane = self.lanes[plan.lane]
        if plan.sequences and passes:
            lane.advance(passes)
        self.passes += passes
        self.record(plan, Outcome(passes, [], 0.0), now)

    def _reset(self, job: LiveJob) -> None:
        job.version += 1
        job.tokens = job.prompt + job.out
        job.done = job.held = job.sliced = 0
        job.own, job.table = [], []
        job.cached_version = -1
        job.moving = None

    def revive(self) -> None:
        """The server is back, empty."""
        self.up = True

    def part(self, job: LiveJob) -> None:
        """A running job stops taking part but keeps its blocks until its move is over."""
        if job.lane is not None:
            self.set_aside(job)
            del self.paused[job.id]
        self.moving[job.id] = job
        self.parted.append(job)

    def expect(self, job: LiveJob, blocks: int) -> bool:
        """Set blocks and a seat aside for a job on its way; False if there is no room."""
        if blocks > self.free or len(self.running) + len(self.incoming) >= self.max_seats:
            return False
        self.free -= blocks
        if self.cache is not None:
            self._claim(blocks)
        self.incoming[job.id] = blocks
        return True

    def unexpect(self, job: LiveJob) -> None:
        """A job that was on its way will not come."""
        blocks = self.incoming.pop(job.id, 0)
        self.free += blocks
        self.blank += blocks

    def adopt(self, job: LiveJob) -> None:
        """A job arrived with its KV: it decodes from the next pass on."""
        job.held = self.incoming.pop(job.id)
        job.server = self.index
        self.jobs[job.id] = self.running[job.id] = job
        self.inflight_tokens += job.prompt
        self.adopted.append(job)
        self.cut_wanted = True

    def surrender(self, job: LiveJob) -> None:
        """The move of a job is over: its blocks here are free."""
        del self.moving[job.id], self.running[job.id], self.jobs[job.id]
        self.inflight_tokens -= job.prompt
        self._give(job, job.held)

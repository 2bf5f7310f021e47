"""What can happen to a replica and its jobs besides running: cancellation, death, and moving jobs with their KV."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from airi_sim.core.protocols import Cache, Queue
from airi_sim.core.types import Plan
from airi_sim.runtime.draft import Drafting
from airi_sim.runtime.hooks import tell_over
from airi_sim.runtime.job import LiveJob
from airi_sim.runtime.lockstep import Lockstep
from airi_sim.runtime.prefix import Pages, PrefixCache


class Lifecycle(Drafting):
    """What happens to the jobs of a TokenServer, and the rare half of its life. `coming`: jobs that are to be handed
    over to it and are not here yet. `heard`: its queue wants to hear when a job is over."""

    __slots__ = (
        "adopted", "caching", "coming", "cut_wanted", "detailed", "heard", "inbox", "incoming", "index",
        "inflight_tokens", "jobs", "leaving", "make_cache", "make_queue", "max_seats", "parted", "passes", "progress",
        "spent", "unit", "up",
    )  # fmt: skip

    make_queue: Callable[[], Queue]
    make_cache: Callable[[], Cache] | None
    progress: Callable[[Plan, float], int]
    spent: Callable[[Plan, int], tuple[float, float]]
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
    cut_wanted: int
    up: bool
    coming: int
    heard: bool

    def empty(self) -> None:
        """Nothing here: at the start, and after the server died."""
        self.jobs: dict[int, LiveJob] = {}
        self.running: dict[int, LiveJob] = {}
        self.paused: dict[int, LiveJob] = {}
        self.moving: dict[int, LiveJob] = {}
        self.incoming: dict[int, int] = {}
        self.inbox: deque[tuple[LiveJob, int]] = deque()
        self.leaving: dict[int, LiveJob] = {}
        self.adopted: list[LiveJob] = []
        self.parted: list[LiveJob] = []
        self.lane, self.partial = self.lanes[0], self.partials[0]
        self.free = self.blank = self.total
        self.withheld = 0
        self.cache = PrefixCache(self.unit, self.make_cache and self.make_cache()) if self.caching else None
        self.pages = Pages(self.total, self.block, self.unit) if self.detailed else None
        self.decodes = False
        self.seats = self.budget = self.reserved = 0
        self.closed = self.preempted = self.buried = False
        self.slices: list[tuple[LiveJob, int]] = []
        self.choices: list[tuple[int, str]] = []
        self.resumed: list[LiveJob] = []
        self.ghosts = 0

    def kv_used(self, now: float) -> int:
        """Blocks in use at `now`, also in the middle of a run of equal passes."""
        used = self.total - self.free
        if self.flights and self.flights[0].repeat > 1:
            plan = self.flights[0]
            lane = self.lanes[plan.lane]
            used += lane.growth(self.progress(plan, now) + 1) - plan.reserved
        return used

    def begin(self, job: LiveJob, lane: Lockstep, now: float) -> None:
        """The prompt is done and the first token out: the job decodes from now on."""
        if job.first is None:
            job.first = now
        job.out += 1
        job.joined_s, job.joined_pass, job.emitted = now, lane.passes, True
        lane.join(job, job.tokens)
        cache = self.cache
        if cache is not None and job.hashes:
            known = len(job.own)
            new = cache.insert(job.hashes, known, min(len(job.hashes), job.prompt // (cache.unit * self.block)))
            job.own += new
            if self.pages is not None:
                self.pages.publish(job, new)

    def correct(self, lane: Lockstep, advanced: dict[Any, int]) -> None:
        """Jobs that got another number of tokens than one."""
        for job, tokens in advanced.items():
            self.grow(lane.shift(job, tokens - 1))

    def grow(self, blocks: int) -> None:
        """Decoding jobs took (or, if negative, did not need) blocks beyond those reserved at the draft."""
        self.free -= blocks
        if self.cache is not None:
            self._claim(blocks)

    def end(self, job: LiveJob, status: str, now: float) -> None:
        """A running job is over, in whatever state it is."""
        del self.running[job.id]
        if job in self.adopted:
            self.adopted.remove(job)
        self._stays(job)
        self._vacate(job)
        tell_over(self.queue, job, now)
        self._gone(job, status)

    def retire(self, job: LiveJob, lane: Lockstep, now: float) -> None:
        """A decoding job emitted its last token: what `end` does, where that is known."""
        del self.running[job.id]
        if self.leaving:
            self._stays(job)
        self.close_span(job)
        blocks = -(-lane.leave(job) // self.block)
        if self.cache is None and self.pages is None:
            self.free += blocks
        else:
            self._give(job, blocks)
        if job.out >= job.budget:
            job.reason = "length"
        if self.heard:
            tell_over(self.queue, job, now)
        self._gone(job, "finished")

    def _stays(self, job: LiveJob) -> None:
        """A job that was to leave at the end of the pass in flight is over before."""
        if self.leaving.pop(job.id, None) is not None and job.moving is not None:
            job.moving.gone()
            job.moving = None

    def _gone(self, job: LiveJob, status: str) -> None:
        job.version += 1
        job.status = status
        self.inflight_tokens -= job.prompt
        del self.jobs[job.id]

    def let_go(self, now: float) -> list[LiveJob]:
        """Jobs cancelled, or to be moved, while a plan was in flight."""
        leaving = [job for job in self.leaving.values() if job.id in self.running and self._idle(job)]
        for job in leaving:
            del self.leaving[job.id]
        gone = [job for job in leaving if job.moving is None]
        self.changed.add(self.slot)
        for job in leaving:
            if job.moving is not None:
                self.part(job)
            else:
                self.end(job, job.doomed, now)
        return gone

    def record(self, plan: Plan, start: float, end: float, passes: int, first_s: float, used: int) -> None:
        """A line of the plans table; `used` KV blocks when its last pass was over, before anybody left."""
        self.log.plans.append((
            self.name, plan.kind, start, end, passes, plan.sequences, plan.prefill_tokens,
            plan.context + plan.prefill_context, used, len(self.jobs) - len(self.running), first_s, plan.lane,
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
        self._withdraw(job, now)
        self._gone(job, reason)
        return True

    def _withdraw(self, job: LiveJob, now: float) -> None:
        """Take a waiting job out of the inbox or the queue; one that cannot remove keeps it as a ghost."""
        entry = next((entry for entry in self.inbox if entry[0] is job), None)
        remove = getattr(self.queue, "remove", None)
        if entry is not None:
            self.inbox.remove(entry)
        elif remove is not None:
            remove(job, now)
        else:
            self.ghosts += 1

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
            self._stays(job)
            self._reset(job)
        for partial in self.partials:
            partial.clear()
        self.empty()
        self.queue = self.make_queue()
        self.queued_tokens = self.inflight_tokens = 0
        return lost

    def _abort(self, plan: Plan, now: float) -> None:
        """Book the passes that were over, and the one that was not as a plan of no pass."""
        passes, start = self.progress(plan, now), plan.start
        used = self.kv_used(now)
        if passes:
            first, seconds = self.spent(plan, passes)
            self.lanes[plan.lane].advance(passes)
            self.passes += passes
            self.record(plan, start, start + seconds, passes, first, used)
            start += seconds
        self.record(plan, start, now, 0, 0.0, used)

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

    def expect(self, job: LiveJob, blocks: int, now: float) -> bool:
        """Set blocks and a seat aside for a job on its way; False if there is no room at this moment."""
        if blocks > self.total - self.kv_used(now) or len(self.running) + len(self.incoming) >= self.max_seats:
            return False
        self.cut_wanted = bool(self.flights)
        self.free -= blocks
        if self.cache is not None:
            self._claim(blocks)
        self.incoming[job.id] = blocks
        return True

    def unexpect(self, job: LiveJob) -> None:
        """A job that was on its way will not come."""
        blocks = self.incoming.pop(job.id, 0)
        self.cut_wanted = self.cut_wanted or bool(blocks and self.flights)
        self.free += blocks
        self.blank += blocks

    def adopt(self, job: LiveJob) -> None:
        """A job arrived with its KV: it decodes from the next pass on."""
        job.held = self.incoming.pop(job.id)
        job.own = []
        job.server = self.index
        self.jobs[job.id] = self.running[job.id] = job
        self.inflight_tokens += job.prompt
        self.adopted.append(job)
        self.cut_wanted = True

    def surrender(self, job: LiveJob) -> None:
        """The move of a job is over: its blocks here are free. The queue it was popped from hears of its end later."""
        if self.heard:
            job.origin = self.queue
        del self.moving[job.id], self.running[job.id], self.jobs[job.id]
        self.inflight_tokens -= job.prompt
        self.cut_wanted = bool(self.flights)
        self._give(job, job.held)

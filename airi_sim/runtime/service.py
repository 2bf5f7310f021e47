"""Servers without a token loop: BatchServer (embedding, reranking, guards) and SlotServer (search, features, tools);
a Link is a SlotServer whose plans are moves."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from airi_sim.core.errors import PolicyError
from airi_sim.core.log import Log
from airi_sim.core.protocols import Batcher, Executor, Queue
from airi_sim.core.types import Ended, Job, Plan
from airi_sim.runtime.hooks import asks_again, tell_over
from airi_sim.runtime.job import LiveJob


class Station:
    """What both have: a queue, jobs that run once from start to end, no memory to run out of."""

    coming = 0

    ahead = False

    def __init__(self, name: str, index: int, make_queue: Callable[[], Queue], log: Log, *, depth: int) -> None:
        self.name, self.index, self.log, self.depth = name, index, log, depth
        self.make_queue, self.queue = make_queue, make_queue()
        self.flights: list[Plan] = []
        self.jobs: dict[int, LiveJob] = {}
        self.running: dict[int, LiveJob] = {}
        self.parted: list[LiveJob] = []
        self.preempted = False
        self.up = True
        self.cut_wanted = False
        self.wake = inf
        self.passes = self.queued_tokens = self.inflight_tokens = 0
        self.total = 0
        self.slot, self.changed = index, set[int]()
        self.verb = "pass"
        self.policy = type(self.queue).__name__

    def attach(self, executor: Executor) -> None:
        """Nothing here asks how far a plan has come."""

    def refuses(self, job: LiveJob) -> str:
        """Nothing is refused here."""
        return ""

    def submit(self, job: LiveJob, now: float) -> None:
        job.server = self.index
        self.jobs[job.id] = job
        self.queued_tokens += job.tokens
        self.inflight_tokens += job.tokens
        self.changed.add(self.slot)
        self.queue.push(job, now)

    def _take(self, job: LiveJob, now: float) -> None:
        self.running[job.id] = job
        self.queued_tokens -= job.tokens
        job.started = now

    def _send(self, jobs: list[LiveJob], now: float, choice: str) -> Plan:
        slices = [(job, job.tokens) for job in jobs]
        plan = Plan(self.index, now, slices, jobs, kind=self.verb, prefill_tokens=sum([job.tokens for job in jobs]))
        self.flights.append(plan)
        self.changed.add(self.slot)
        for job in jobs:
            self.log.decide(self.name, self.policy, job.id, choice, self.passes)
        self.passes += 1
        return plan

    def commit(self, plan: Plan, outcome: Ended, now: float) -> list[LiveJob]:
        """All jobs of the plan are over, except those that were cancelled meanwhile."""
        self.flights.remove(plan)
        plan.live = False
        ended = [job for job, _ in plan.slices if job.id in self.running]
        for job in ended:
            del self.running[job.id]
            job.first = now
            tell_over(self.queue, job, now)
            self._gone(job, job.doomed or "finished")
        self.changed.add(self.slot)
        self._record(plan, outcome, now)
        return sorted(ended)

    def _record(self, plan: Plan, outcome: Ended, now: float) -> None:
        row = (
            self.name, plan.kind, plan.start, now, 1, 0, plan.prefill_tokens, 0, 0, len(self.queue), outcome[2], 0,
        )  # fmt: skip
        self.log.plans.append(row)

    def _gone(self, job: LiveJob, status: str) -> None:
        job.version += 1
        job.status = status
        self.inflight_tokens -= job.tokens
        del self.jobs[job.id]

    def cancel(self, job: LiveJob, reason: str, now: float) -> bool:
        """See TokenServer.cancel; what runs here cannot be stopped half way."""
        job.doomed = reason
        if job.id in self.running:
            return False
        self.queued_tokens -= job.tokens
        remove = getattr(self.queue, "remove", None)
        if remove is not None:
            remove(job, now)
        self._gone(job, reason)
        return True

    def fail(self, now: float) -> list[LiveJob]:
        """See TokenServer.fail."""
        for plan in self.flights:
            plan.live = False
            self._record(plan, (0, [], 0.0, None, ""), now)
        lost = list(self.jobs.values())
        for job in lost:
            job.version += 1
        self.flights, self.jobs, self.running = [], {}, {}
        self.queue = self.make_queue()
        self.queued_tokens = self.inflight_tokens = 0
        self.up = False
        return lost

    def revive(self) -> None:
        self.up = True

    def kv_used(self, now: float) -> int:
        return 0

    def stuck(self) -> list[LiveJob]:
        return list(self.jobs.values())

    def _next(self, now: float) -> LiveJob | None:
        """The head of the queue, cancelled ones dropped."""
        while True:
            job = self.queue.peek(now)
            if job is None:
                return None
            assert isinstance(job, LiveJob)
            if not job.doomed:
                return job
            self.queue.pop(now)


class SlotServer(Station):
    """`depth` slots, one job each: a vector index, a feature server, a tool."""

    def plan(self, now: float) -> Plan | None:
        """Start the next job if a slot is free."""
        self.wake = inf
        if not self.up or len(self.flights) >= self.depth:
            return None
        job = self._next(now)
        if job is None:
            self.wake = asks_again(self.queue, now)
            return None
        self.queue.pop(now)
        self._take(job, now)
        return self._send([job], now, "start")


class Link(SlotServer):
    """A way for bytes: its jobs are moves of `tokens` bytes."""

    def __init__(self, name: str, index: int, make_queue: Callable[[], Queue], log: Log, *, depth: int = 1) -> None:
        super().__init__(name, index, make_queue, log, depth=depth)
        self.verb = "move"


class BatchServer(Station):
    """One batch at a time, composed by a Batcher: the same protocol, on a server where nobody decodes."""

    def __init__(
        self,
        name: str,
        index: int,
        make_queue: Callable[[], Queue],
        batcher: Batcher,
        log: Log,
        *,
        seats: int = 32,
        limit: int = 8192,
    ) -> None:
        super().__init__(name, index, make_queue, log, depth=1)
        self.batcher = batcher
        self.policy = type(batcher).__name__
        self.max_seats, self.limit = seats, limit
        self.partial: list[LiveJob] = []
        self.paused: dict[int, LiveJob] = {}
        self.decoding = 0
        self.block = 1
        self.preempted = self.closed = False
        self.budget = self.seats = self.available = 0
        self.batch: list[LiveJob] = []

    @property
    def preemptible(self) -> dict[int, LiveJob]:
        """Nobody: a batch runs to its end."""
        return {}

    @property
    def sliced(self) -> bool:
        return bool(self.batch)

    def plan(self, now: float) -> Plan | None:
        """Let the batcher compose a batch; it may choose to wait."""
        self.wake = inf
        if not self.up or self.flights:
            return None
        if self._next(now) is None:
            self.wake = asks_again(self.queue, now)
            return None
        self.batch = []
        self.budget, self.seats, self.now = self.limit, self.max_seats, now
        before = len(self.queue)
        self.batcher.form(self, self.queue, now)
        if len(self.queue) != before - len(self.batch):
            raise PolicyError(
                f"policy {self.policy} on {self.name} admitted {len(self.batch)} jobs but the queue went from {before} "
                f"to {len(self.queue)}: pop each admitted job once."
            )
        jobs = [job for job in self.batch if not job.doomed]
        if jobs:
            return self._send(jobs, now, "batch")
        if self.batch:
            return self.plan(now)
        if hasattr(self.batcher, "stable"):
            self.wake = self.batcher.stable(self, self.queue, now).until
        return None

    def admit(self, job: Job) -> bool:
        """Take the whole job into the batch; one that is over the budget by itself runs alone."""
        assert isinstance(job, LiveJob)
        if self.seats <= 0 or (job.tokens > self.budget and self.batch):
            return False
        self.seats -= 1
        self.budget -= job.tokens
        self.batch.append(job)
        if not job.doomed:
            self._take(job, self.now)
        return True

    def decode(self, now: float) -> None:
        """Nobody decodes here."""

    def chunk(self, job: Job, now: float) -> bool:
        return False

    def preempt(self, job: Job, now: float) -> None:
        raise PolicyError(f"policy {self.policy} on {self.name} preempted job {job.id}: batches run to their end.")

    def pause(self, job: Job, now: float) -> None:
        raise PolicyError(f"policy {self.policy} on {self.name} paused job {job.id}: batches run to their end.")

    def resume(self, job: Job, now: float) -> None:
        raise PolicyError(f"policy {self.policy} on {self.name} resumed job {job.id}: batches run to their end.")

    def attained(self, job: Job) -> int:
        return 0

    def filled(self, job: Job) -> int:
        return 0

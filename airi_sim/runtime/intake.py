"""How jobs come to a TokenServer: what it refuses, when its engine looks at them, and whether they cut what runs."""

from __future__ import annotations

from airi_sim.core.protocols import Executor
from airi_sim.core.types import Plan
from airi_sim.runtime.job import LiveJob
from airi_sim.runtime.lifecycle import Lifecycle
from airi_sim.runtime.prefix import prefix_hashes


def no_progress(_plan: Plan, _now: float) -> int:
    """Before a driver attached an executor nothing has run."""
    return 0


def nothing_spent(_plan: Plan, _passes: int) -> tuple[float, float]:
    """Of executors whose plans have no passes to look back on before they end."""
    return 0.0, 0.0


class Intake(Lifecycle):
    """The way in. An engine that works `ahead` composes the next pass while one runs, so a job that comes meanwhile
    lies in the `inbox` during that next pass and is pushed to the queue when it is over. Entries are (job, number of
    that pass), in order."""

    __slots__ = (
        "account", "ahead", "depth", "greedy", "hash_block", "max_len", "preempts", "timeless",
    )  # fmt: skip

    account: str | None
    ahead: bool
    depth: int
    greedy: bool
    hash_block: int
    max_len: int
    preempts: bool
    timeless: bool

    def attach(self, executor: Executor) -> None:
        """Know how far a plan in flight has come, and keep what only some executors ask for."""
        self.progress = executor.progress
        self.spent = getattr(executor, "spent", nothing_spent)
        for lane in self.lanes:
            lane.ranked = getattr(executor, "ranks", True)

    def refuses(self, job: LiveJob) -> str:
        """Why this job can never run here; empty if it can."""
        if job.prompt >= self.max_len:
            return f"prompt of {job.prompt} tokens leaves no room in the limit of {self.max_len}"
        if not self.chunked and job.prompt > self.limit:
            return (
                f"prompt of {job.prompt} tokens is over max_num_batched_tokens={self.limit} and chunked_prefill is off"
            )
        return ""

    def submit(self, job: LiveJob, now: float) -> None:
        """Take a job that `refuses` nothing; sets `cut_wanted` if the plan in flight could change by it."""
        job.server = self.index
        room = self.max_len - job.prompt
        if job.budget > room:
            job.budget = room
        if self.caching and job.prefix:
            job.hashes, _ = prefix_hashes(job.prefix, job.prompt, self.hash_block, self.block)
        if self.detailed:
            job.table = []
        self.jobs[job.id] = job
        self.queued_tokens += job.tokens
        self.inflight_tokens += job.prompt
        self.changed.add(self.slot)
        if not self.flights:
            self.queue.push(job, now)
        elif self.ahead:
            self._lay_down(job, self.flights[0], now)
        else:
            self._push(job, self.flights[0], now)

    def _push(self, job: LiveJob, plan: Plan, now: float) -> None:
        """To the queue, while a plan is in flight."""
        if plan.repeat == 1:
            self.queue.push(job, now)
            return
        if self.account is not None:
            self._settle(plan, self.progress(plan, now))
        self.queue.push(job, now)
        if not self.cut_wanted:
            self.cut_wanted = int(self._cuts(job, now))

    def _open(self) -> bool:
        """Whether an arrival could get in at all."""
        return not self.closed and (self.seats > 0 or self.preempts)

    def _cuts(self, job: LiveJob, now: float) -> bool:
        """Whether an arrival can change the plan in flight: only a new head that finds a seat and a block can. How much
        of it the batcher would take is not known here: it may have lowered the budget for prompts alone."""
        if not self._open():
            return False
        if not (self.timeless and self.greedy) or self.preempts or self.cache is not None:
            return True
        return self.free > 0 and self.queue.peek(now) is job

    def _settle(self, plan: Plan, passes: int) -> None:
        """Book service of passes that are over and not yet booked."""
        fresh = passes - plan.charged
        if fresh > 0:
            self.queue.serve(self.lanes[plan.lane].accounts, fresh)  # type: ignore[attr-defined]
            plan.charged = passes

    # -- engines that work ahead

    def _lay_down(self, job: LiveJob, plan: Plan, now: float) -> None:
        """Into the inbox: the pass after the one in flight is composed already. It ends there if it could change."""
        if plan.repeat == 1:
            self.inbox.append((job, self.passes + 1))
            return
        progress = self.progress  # a function in an attribute is called faster from a local
        self.inbox.append((job, self.passes + progress(plan, now) + 1))
        if not self.cut_wanted and self._open():
            self.cut_wanted = 2

    def look_back(self, plan: Plan, passes: int, now: float) -> None:
        """So many passes are over, the last of them at `now`: push what was to be looked at after one of them, as of
        that moment."""
        inbox, before = self.inbox, self.passes
        while inbox and inbox[0][1] < before + passes:
            job, number = inbox.popleft()
            done = number + 1 - before
            if plan.sequences and self.account is not None:
                self._settle(plan, done)
            self.queue.push(job, now if done == passes else plan.start + self.spent(plan, done)[1])

    def _withdraw(self, job: LiveJob, now: float) -> None:
        """Also: the queue hears first of who was looked at before, and that may be this job. It draws lots, or lifts a
        tenant, when a job comes, even one that goes again."""
        if self.inbox and self.flights:
            plan = self.flights[0]
            done = self.progress(plan, now)
            self.look_back(plan, done, plan.start + self.spent(plan, done)[1])
        super()._withdraw(job, now)

    def look(self, now: float) -> None:
        """Nothing runs: look at whatever came."""
        while self.inbox:
            self.queue.push(self.inbox.popleft()[0], now)

"""One LLM replica as a state machine: waiting, running, KV blocks. `plan` decides what runs, `commit` books what ran.

Fast-forward: when a pass would repeat unchanged, the plan says how often (`repeat`) and until when. In a decode-only
stretch seats and blocks only shrink, so a greedy batcher's answer can change only by a stop, a missing block, an
arrival, or another head of the queue while a seat is free; the queue is asked for its horizon only in that case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import Any

from airi_sim.core.errors import PolicyError
from airi_sim.core.log import Log
from airi_sim.core.protocols import Batcher, Evictor, Queue
from airi_sim.core.types import FOREVER, Horizon, Outcome, Plan, Row
from airi_sim.runtime.draft import Drafting
from airi_sim.runtime.job import LiveJob
from airi_sim.runtime.lockstep import Lockstep
from airi_sim.runtime.prefix import Pages, PrefixCache, prefix_hashes

STALL_PASSES = 20_000


def no_progress(_plan: Plan, _now: float) -> int:
    """Before a driver attached an executor nothing has run."""
    return 0


class TokenServer(Drafting):
    """A replica with `blocks` KV blocks of `block` tokens and `seats` sequences at most; see the module for the rules.

    `depth` plans may be in flight, each with its own lane of jobs (pipeline stages). `lookahead` tokens more than one
    may be accepted per job and pass (speculation). `fast=False` plans pass by pass. `detailed` keeps block tables.
    """

    kind = "generate"

    def __init__(
        self,
        name: str,
        index: int,
        make_queue: Callable[[], Queue],
        batcher: Batcher,
        evictor: Evictor,
        log: Log,
        *,
        blocks: int,
        block: int = 16,
        seats: int = 256,
        limit: int = 8192,
        max_len: int = FOREVER,
        chunked: bool = True,
        caching: bool = False,
        hash_block: int = 512,
        fast: bool = True,
        depth: int = 1,
        lookahead: int = 0,
        detailed: bool = False,
    ) -> None:
        self.name, self.index, self.log = name, index, log
        self.make_queue, self.queue, self.batcher, self.evictor = make_queue, make_queue(), batcher, evictor
        self.account: str | None = getattr(self.queue, "account", None)
        self.timeless = bool(getattr(self.queue, "timeless", False))
        self.greedy = bool(getattr(batcher, "greedy", False))
        self.preempts = bool(getattr(batcher, "preempts", False))
        self.policy = type(batcher).__name__
        self.total, self.block, self.max_seats, self.limit = blocks, block, seats, limit
        self.max_len = min(max_len, blocks * block)
        self.chunked, self.caching, self.hash_block = chunked, caching, hash_block
        self.fast, self.depth, self.lookahead, self.detailed = fast, depth, lookahead, detailed
        self.unit = prefix_hashes((), 0, hash_block, block)[1]
        self.lanes = [Lockstep(block, self.account, i) for i in range(depth)]
        self.partials: list[list[LiveJob]] = [[] for _ in range(depth)]
        self.flights: list[Plan] = []
        self.progress: Callable[[Plan, float], int] = no_progress
        self.up = True
        self.cut_wanted = False
        self.wake = inf
        self.passes = self.idle_passes = self.queued_tokens = self.inflight_tokens = 0
        self._empty()

    def _empty(self) -> None:
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

    # -- in

    def refuses(self, job: LiveJob) -> str:
        """Why this job can never run here; empty if it can."""
        if job.tokens >= self.max_len:
            return f"prompt of {job.tokens} tokens leaves no room in the limit of {self.max_len}"
        if not self.chunked and job.tokens > self.limit:
            return (
                f"prompt of {job.tokens} tokens is over max_num_batched_tokens={self.limit} and chunked_prefill is off"
            )
        return ""

    def submit(self, job: LiveJob, now: float) -> None:
        """Queue a job that `refuses` nothing; sets `cut_wanted` if the plan in flight could change by it."""
        job.server = self.index
        job.budget = min(job.budget, self.max_len - job.prompt)
        if self.caching and job.prefix:
            job.hashes, _ = prefix_hashes(job.prefix, job.prompt, self.hash_block, self.block)
        self.jobs[job.id] = job
        self.queued_tokens += job.tokens
        self.inflight_tokens += job.prompt
        plan = self.flights[0] if self.flights else None
        if plan is None or plan.repeat == 1:
            self.queue.push(job, now)
            return
        if self.account is not None:
            self._settle(plan, self.progress(plan, now))
        self.queue.push(job, now)
        self.cut_wanted = self.cut_wanted or self._cuts(job, now)

    def _cuts(self, job: LiveJob, now: float) -> bool:
        """Whether an arrival can change the plan in flight: only a new head that finds a seat and room can."""
        if self.closed or not (self.seats or self.preempts):
            return False
        if not (self.timeless and self.greedy) or self.preempts or self.cache is not None:
            return True
        return self.queue.peek(now) is job and -(-self._first(job.tokens) // self.block) <= self.free

    def _settle(self, plan: Plan, passes: int) -> None:
        """Book service of passes that are over and not yet booked."""
        fresh = passes - plan.charged
        if fresh > 0:
            self.queue.serve(self.lanes[plan.lane].accounts, fresh)  # type: ignore[attr-defined]
            plan.charged = passes

    # -- plan

    def plan(self, now: float) -> Plan | None:
        """What to run next, or None: nothing to do, or as many plans in flight as the server can have."""
        self.wake = inf
        if not self.up or len(self.flights) >= self.depth:
            return None
        if not self.running and not len(self.queue):
            return None
        if self.depth == 1:
            return self._draft(now)
        for index in self._idle_lanes():
            self.lane, self.partial = self.lanes[index], self.partials[index]
            plan = self._draft(now)
            if plan is not None:
                return plan
        return None

    def _idle_lanes(self) -> list[int]:
        """Lanes without a plan in flight, the emptiest first: that keeps the stages even."""
        busy = {plan.lane for plan in self.flights}
        idle = [i for i in range(self.depth) if i not in busy]
        return sorted(idle, key=lambda i: self.lanes[i].count + len(self.partials[i]))

    def _draft(self, now: float) -> Plan | None:
        for _ in range(len(self.running) + 2):
            self._open(now)
            self.batcher.form(self, self.queue, now)
            self._audit()
            if self.slices or (self.decodes and self.lane.count):
                return self._seal(now)
            if not self.preempted:
                self._sleep(now)
                return None
        raise PolicyError(f"{self._who()} preempts in circles: every running job lost its memory and none could run.")

    def _open(self, now: float) -> None:
        self.now = now
        self.slices = []
        self.choices: list[tuple[int, str]] = []
        self.resumed: list[LiveJob] = []
        self.decodes = self.closed = self.preempted = False
        self.budget = self.limit
        self.seats = self.max_seats - len(self.running) - len(self.incoming)
        self.available = self.free
        self.reserved = self.attention = self.context = self.admitted = self.requeued = 0
        self.waited = len(self.queue)
        if self.adopted:
            for job in self.adopted:
                self.rejoin(job, now, emitted=False)
                self.choices.append((job.id, "adopt"))
            self.adopted = []

    def _audit(self) -> None:
        """The rules a batcher, a queue and an evictor must keep, checked after every draft."""
        if len(self.queue) != self.waited - self.admitted + self.requeued:
            raise PolicyError(
                f"policy {type(self.queue).__name__} on {self.name} holds {len(self.queue)} jobs after {self.waited} "
                f"waited, {self.policy} admitted {self.admitted} and preempted {self.requeued}: every admitted job "
                f"must be popped once, every preempted one requeued once."
            )
        spent = self.limit - self.budget
        used = (self.lane.count if self.decodes else 0) + sum([tokens for _, tokens in self.slices])
        if spent < used or self.budget < 0:
            raise PolicyError(
                f"{self._who()} drafted {used} tokens, over the budget of max_num_batched_tokens={self.limit}."
            )
        if self.free < 0:
            raise PolicyError(f"{self._who()} drafted {-self.free} KV blocks more than there are.")

    def _sleep(self, now: float) -> None:
        """Nothing runs although jobs wait: ask a batcher that waits on purpose when it wants to be asked again."""
        if not self.greedy and hasattr(self.batcher, "stable"):
            self.wake = self.batcher.stable(self, self.queue, now).until

    def _seal(self, now: float) -> Plan:
        lane, slices = self.lane, self.slices
        sequences = lane.count if self.decodes else 0
        ends: list[LiveJob] = []
        tokens = 0
        repeat, until = 1, inf
        if slices:
            for job, n in slices:
                tokens += n
                if job.done == job.tokens:
                    ends.append(job)
                    self.partial.remove(job) if job in self.partial else None
            if lane.count and not self.decodes:
                self.choices.append((-1, "hold"))
        elif self.fast and not self.preempted and self.depth == 1 and not self.lookahead:
            repeat, until = self._horizon(now)
        plan = Plan(
            self.index, now, slices, ends, sequences=sequences, context=lane.context if sequences else 0,
            longest=lane.longest() if sequences else 0, prefill_tokens=tokens, prefill_attention=self.attention,
            prefill_context=self.context, repeat=repeat, until=until, lane=lane.index, joins=self.resumed,
            reserved=self.reserved,
        )  # fmt: skip
        for job_id, choice in self.choices:
            self.log.decide(self.name, self.policy, job_id, choice, self.passes)
        if self.pages is not None:
            plan.rows = list(self._rows(plan))
        self.flights.append(plan)
        self.cut_wanted = False
        return plan

    def _horizon(self, now: float) -> tuple[int, float]:
        """How many equal passes follow for sure, and until when."""
        repeat, until = self.lane.headroom(self.free + self.reserved), inf
        queue = self.queue
        if not self.greedy:
            stable = getattr(self.batcher, "stable", None)
            horizon = stable(self, queue, now) if stable is not None else Horizon()
            repeat, until = min(repeat, horizon.passes), horizon.until
        if not self.timeless and (self.seats or self.preempts) and not self.closed and len(queue):
            stable = getattr(queue, "stable", None)
            horizon = stable(now, self.lane.accounts) if stable is not None else Horizon()
            repeat, until = min(repeat, horizon.passes), min(until, horizon.until)
        return max(1, repeat), until

    def _rows(self, plan: Plan) -> Iterable[Row]:
        pages, lane = self.pages, self.lane
        assert pages is not None
        if plan.sequences:
            for job in self.running.values():
                if job.lane is lane:
                    tokens = lane.tokens(job)
                    pages.cover(job, tokens + 1 + self.lookahead)
                    yield Row(job, tokens, 1, job.table)
        for job, n in plan.slices:
            yield Row(job, job.done - n, n, job.table)

    # -- commit

    def commit(self, plan: Plan, outcome: Outcome, now: float) -> list[LiveJob]:
        """Book what ran; returns the jobs that are over, in order of id."""
        self.flights.remove(plan)
        plan.live = self.decodes = False
        lane = self.lanes[plan.lane]
        if plan.sequences:
            self._book(plan, lane, outcome)
        self.passes += outcome.passes
        for job, _ in plan.slices:
            job.sliced = 0
        for job in plan.ends:
            self._begin(job, lane, now)
        ended = sorted(outcome.stopped) if len(outcome.stopped) > 1 else outcome.stopped
        for job in ended:
            job.reason = "length" if job.out + lane.passes - job.g0 >= job.budget else ""
            self._end(job, "finished", now)
        if self.leaving:
            ended = ended + self._let_go(now)
        self._watch(plan, ended)
        self._record(plan, outcome, now)
        return ended

    def _book(self, plan: Plan, lane: Lockstep, outcome: Outcome) -> None:
        if self.account is not None:
            self._settle(plan, outcome.passes)
        extra = lane.growth(outcome.passes) - plan.reserved
        if extra:
            self._take(extra)
        lane.advance(outcome.passes)
        if outcome.advanced:
            for job, tokens in outcome.advanced.items():
                self._take(lane.shift(job, tokens - 1))

    def _begin(self, job: LiveJob, lane: Lockstep, now: float) -> None:
        """The prompt is done and the first token out: the job decodes from now on."""
        if job.first < 0:
            job.first = now
        job.out += 1
        job.joined_s, job.joined_pass, job.emitted = now, lane.passes, True
        lane.join(job, job.tokens)
        cache = self.cache
        if cache is not None and job.hashes:
            known = len(job.own)
            new = cache.insert(job.hashes[known : job.prompt // (cache.unit * self.block)])
            job.own += new
            if self.pages is not None:
                self.pages.publish(job, new)

    def _end(self, job: LiveJob, status: str, now: float) -> None:
        """A running job is over, in whatever state it is."""
        del self.running[job.id]
        self._vacate(job)
        self._gone(job, status, now)

    def _gone(self, job: LiveJob, status: str, now: float) -> None:
        job.version += 1
        job.status, job.finished = status, now
        self.inflight_tokens -= job.prompt
        del self.jobs[job.id]

    def _let_go(self, now: float) -> list[LiveJob]:
        """Jobs cancelled, or to be moved, while a plan was in flight."""
        leaving = [job for job in self.leaving.values() if job.id in self.running]
        self.leaving = {}
        gone = [job for job in leaving if job.moving is None]
        for job in leaving:
            if job.moving is not None:
                self.part(job)
            else:
                self._end(job, job.doomed, now)
        return gone

    def _watch(self, plan: Plan, ended: list[LiveJob]) -> None:
        """A run in which nothing ever moves ends with an error instead of hanging."""
        if plan.sequences or plan.ends or ended:
            self.idle_passes = 0
            return
        self.idle_passes += 1
        if self.idle_passes > STALL_PASSES + self.total * self.block // max(1, plan.prefill_tokens):
            jobs = ", ".join([str(i) for i in list(self.running)[:5]])
            raise PolicyError(
                f"{self._who()} makes no progress: {self.idle_passes} passes without a token (running jobs {jobs})."
            )

    def _record(self, plan: Plan, outcome: Outcome, now: float) -> None:
        context = plan.context + plan.prefill_context
        row = (
            self.name, plan.kind, plan.start, now, outcome.passes, plan.sequences, plan.prefill_tokens, context,
            self.total - self.free, len(self.queue), outcome.first_s, plan.lane,
        )  # fmt: skip
        self.log.plans.append(row)

    # -- out of the ordinary

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
            self._end(job, reason, now)
            return True
        self.queued_tokens -= job.tokens
        remove = getattr(self.queue, "remove", None)
        if remove is not None:
            remove(job, now)
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
        self._empty()
        self.queue = self.make_queue()
        self.queued_tokens = self.inflight_tokens = 0
        return lost

    def _abort(self, plan: Plan, now: float) -> None:
        passes = self.progress(plan, now)
        lane = self.lanes[plan.lane]
        if plan.sequences and passes:
            lane.advance(passes)
        self.passes += passes
        self._record(plan, Outcome(passes, [], 0.0), now)

    def _reset(self, job: LiveJob) -> None:
        job.version += 1
        job.tokens = job.prompt + job.out
        job.done = job.held = job.sliced = 0
        job.own, job.table, job.hashes = [], [], ()
        job.cached_version = -1
        job.moving = None

    def revive(self) -> None:
        """The server is back, empty."""
        self.up = True

    # -- handing over (see handover.py)

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
        self._take(blocks)
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

    # -- what the control plane may see

    def kv_used(self, now: float) -> int:
        """Blocks in use at `now`, also in the middle of a run of equal passes."""
        used = self.total - self.free
        if self.flights and self.flights[0].repeat > 1:
            plan = self.flights[0]
            lane = self.lanes[plan.lane]
            used += lane.growth(self.progress(plan, now) + 1) - plan.reserved
        return used

    def stuck(self) -> Any:
        """Jobs that are here although nothing is in flight (for the message of the watchdog)."""
        return list(self.jobs.values())

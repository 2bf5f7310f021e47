"""One LLM replica as a state machine: waiting, running, KV blocks. `plan` decides what runs, `commit` books what ran.

Fast-forward: when a pass would repeat unchanged, the plan says how often (`repeat`) and until when. In a decode-only
stretch seats and blocks only shrink, so a greedy batcher's answer can change only by a stop, a missing block, an
arrival, or another head of the queue while a seat is free; the queue is asked for its horizon only in that case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Any

from airi_sim.core.errors import PolicyError
from airi_sim.core.log import Log
from airi_sim.core.protocols import Batcher, Cache, Evictor, Queue
from airi_sim.core.types import FOREVER, Ended, Horizon, Plan, Row
from airi_sim.runtime.hooks import asks_again, claims
from airi_sim.runtime.intake import Intake, no_progress, nothing_spent
from airi_sim.runtime.job import LiveJob
from airi_sim.runtime.lockstep import Lockstep
from airi_sim.runtime.prefix import prefix_hashes

STALL_PASSES = 20_000
MOST_CIRCLES = 100
blank_plan = Plan.__new__


class TokenServer(Intake):
    """A replica with `blocks` KV blocks of `block` tokens and `seats` sequences at most; see the module for the rules.

    `depth` plans may be in flight, each with its own lane of jobs (pipeline stages). `lookahead` tokens more than one
    may be accepted per job and pass (speculation). `ahead`: while a pass runs the next one is composed already
    (asynchronous scheduling), so that an arrival is looked at when the pass in flight is over. `fast=False` plans pass
    by pass. `detailed` keeps block tables.
    """

    __slots__ = (
        "fast", "moved", "plain", "policy", "seen", "segments", "steady", "wake",
    )  # fmt: skip

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
        ahead: bool = False,
        detailed: bool = False,
        make_cache: Callable[[], Cache] | None = None,
    ) -> None:
        self.name, self.index, self.log = name, index, log
        self.make_queue, self.queue, self.batcher, self.evictor = make_queue, make_queue(), batcher, evictor
        self.make_cache = make_cache
        self.account: str | None = getattr(self.queue, "account", None)
        self.timeless = bool(getattr(self.queue, "timeless", False))
        self.greedy = bool(getattr(batcher, "greedy", False))
        self.steady = self.greedy and self.timeless
        self.segments = fast and depth == 1 and not lookahead
        self.plain = fast and claims(batcher, "plain", "form")
        self.preempts = bool(getattr(batcher, "preempts", False))
        self.policy = type(batcher).__name__
        self.total, self.block, self.max_seats, self.limit = blocks, block, seats, limit
        self.max_len = min(max_len, blocks * block)
        self.chunked, self.caching, self.hash_block = chunked, caching, hash_block
        self.fast, self.depth, self.lookahead, self.detailed = fast, depth, lookahead, detailed
        self.ahead = ahead
        self.unit = prefix_hashes((), 0, hash_block, block)[1]
        self.lanes = [Lockstep(block, self.account, i) for i in range(depth)]
        self.partials: list[list[LiveJob]] = [[] for _ in range(depth)]
        self.flights: list[Plan] = []
        self.progress: Callable[[Plan, float], int] = no_progress
        self.spent: Callable[[Plan, int], tuple[float, float]] = nothing_spent
        self.up = True
        self.cut_wanted = 0
        self.heard = hasattr(self.queue, "over")
        self.wake = inf
        self.ghosts = self.coming = 0
        self.passes = self.moved = self.seen = self.queued_tokens = self.inflight_tokens = 0
        self.slot, self.changed = index, set[int]()
        self.empty()

    # -- plan

    def plan(self, now: float, once: bool = False) -> Plan | None:
        """What to run next, or None. Asked only while fewer than `depth` plans are in flight. `once`: whatever comes of
        a single draft for the lane at hand."""
        if not once:
            self.wake = inf
            if not self.jobs or not self.up:
                return None
            if self.depth > 1:
                return self._plan_lane(now)
        self.now = now
        self.decodes = self.closed = self.preempted = self.buried = False
        self.budget = self.limit
        self.seats = self.max_seats - len(self.running)
        self.withheld = 0
        if self.incoming or self.adopted:
            self._welcome(now)
        if self.plain and len(self.jobs) == len(self.running) and not (self.partial or self.ghosts):
            self.decode(now)
        else:
            self.batcher.form(self, self.queue, now)
        if self.free < 0:
            raise PolicyError(f"{self._who()} drafted {-self.free} KV blocks more than there are.")
        if self.slices:
            plan = self._mixed(now)
        elif self.decodes and self.lane.count:
            plan = self._decodes(now, self.lane)
        else:
            if not self.preempted:
                self._sleep(now)
            return None if once else self._otherwise(now)
        if self.choices:
            for job_id, choice in self.choices:
                self.log.decide(self.name, self.policy, job_id, choice, self.passes)
            self.choices = []
        if self.resumed:
            self.resumed = []
        if self.pages is not None:
            plan.rows = list(self._rows(plan))
        self.flights.append(plan)
        self.cut_wanted = 0
        return plan

    def _plan_lane(self, now: float) -> Plan | None:
        """A plan of a lane that has none in flight, the emptiest first: that keeps the stages even."""
        busy = {plan.lane for plan in self.flights}
        idle = [i for i in range(self.depth) if i not in busy]
        for index in sorted(idle, key=lambda i: self.lanes[i].count + len(self.partials[i])):
            self.lane, self.partial = self.lanes[index], self.partials[index]
            plan = self.plan(now, once=True) or self._again(now)
            if plan is not None:
                return plan
        return self._looked(now)

    def _otherwise(self, now: float) -> Plan | None:
        """What to run where a draft came to nothing."""
        return self._again(now) or self._looked(now)

    def _again(self, now: float) -> Plan | None:
        """A draft that only preempted, or only met cancelled jobs: draft anew with what it gave back."""
        circles, plan = 0, None
        while plan is None and (self.preempted or self.buried):
            circles += self.preempted and not self.running
            if circles > MOST_CIRCLES:
                raise PolicyError(f"{self._who()} preempts in circles: all running jobs lose their memory, none runs.")
            plan = self.plan(now, once=True)
        return plan

    def _looked(self, now: float) -> Plan | None:
        """What to run after a look into the inbox, where nothing else is to be done."""
        if not self.inbox or self.flights:
            return None
        self.look(now)
        return self.plan(now)

    def _welcome(self, now: float) -> None:
        """Jobs that came with their KV decode from this pass on; those on their way have a seat."""
        self.seats -= len(self.incoming)
        for job in self.adopted:
            self.rejoin(job, now, emitted=False)
            self.choices.append((job.id, "adopt"))
        self.adopted = []

    def _audit(self, waiting: int) -> None:
        """Every admitted job must have been popped once, every preempted one requeued once; and all have seats."""
        if len(self.queue) != waiting:
            raise PolicyError(
                f"policy {type(self.queue).__name__} on {self.name} holds {len(self.queue)} jobs where {waiting} wait: "
                f"{self.policy} must pop each job it admits once, and the queue must keep each job pushed or requeued."
            )
        raise PolicyError(f"{self._who()} runs {len(self.running)} jobs on {self.max_seats} seats (max_num_seqs).")

    def _sleep(self, now: float) -> None:
        """Nothing runs although jobs wait: ask who waits on purpose, batcher or queue, when to ask again."""
        if not self.greedy and hasattr(self.batcher, "stable"):
            self.wake = self.batcher.stable(self, self.queue, now).until
        self.wake = min(self.wake, asks_again(self.queue, now))

    def _mixed(self, now: float) -> Plan:
        """A pass with prompts in it: it is made once, never repeated."""
        running = len(self.running)
        waiting = len(self.jobs) - running - len(self.inbox) + self.ghosts
        if running > self.max_seats or len(self.queue) != waiting:
            self._audit(waiting)
        lane, slices = self.lane, self.slices
        self.slices = []
        sequences = lane.count if self.decodes else 0
        ends: list[LiveJob] = []
        tokens = attention = context = 0
        log, name, policy, passes = self.log, self.name, self.policy, self.passes
        for job, n in slices:
            done = job.done
            tokens += n
            attention += n * (2 * done - n)
            context += done
            job.sliced = 0
            if done == job.tokens:
                ends.append(job)
                if self.partial and job in self.partial:
                    self.partial.remove(job)
            log.decisions.append((next(log.order), name, policy, job.id, f"chunk {n}", passes))
        if self.budget < 0 or tokens + sequences > self.limit:
            drafted = f"{self._who()} drafted {tokens + sequences} tokens"
            raise PolicyError(f"{drafted}, over the budget of max_num_batched_tokens={self.limit}.")
        if not sequences and lane.count:
            self.choices.append((-1, "hold"))
        self.changed.add(self.slot)
        plan = self._plan_of(now, lane, sequences)
        plan.slices, plan.ends = slices, ends
        plan.prefill_tokens, plan.prefill_attention, plan.prefill_context = tokens, attention, context
        return plan

    def _plan_of(self, now: float, lane: Lockstep, sequences: int) -> Plan:
        """A plan of decodes only, field by field: a third cheaper than the constructor, and this is the hot path."""
        plan = blank_plan(Plan)
        plan.server, plan.start, plan.lane, plan.kind = self.index, now, lane.index, "pass"
        plan.slices = plan.ends = ()
        plan.joins = self.resumed
        plan.sequences = sequences
        plan.context = plan.longest = plan.reserved = plan.shared = 0
        if sequences:
            plan.context, plan.reserved = lane.context, self.reserved
            if lane.ranked:
                plan.longest = lane.longest()
            if self.cache is not None:
                plan.shared = self._shared(lane.context)
        plan.prefill_tokens = plan.prefill_attention = plan.prefill_context = plan.charged = 0
        plan.repeat = 1
        plan.until = plan.end = inf
        plan.live = True
        plan.rows = None
        return plan

    def _shared(self, context: int) -> int:
        """Tokens of decoding jobs that others read, too; prompts under way refer to them as well, so no more than all
        of the context."""
        cache = self.cache
        return min(cache.shared * cache.unit * self.block, context) if cache is not None else 0

    def _decodes(self, now: float, lane: Lockstep) -> Plan:
        """A pass in which everybody decodes, and as many equal ones after it as are sure to follow."""
        plan = self._plan_of(now, lane, lane.count)
        if self.segments and not self.preempted:
            free = self.free + self.reserved
            plan.repeat = self.block << 10 if free > plan.sequences << 10 else lane.headroom(free)
            if self.cache is not None:
                if plan.shared == plan.context:  # at its bound, which grows: the next pass costs something else
                    plan.repeat = 1
                elif self.seats and len(self.queue):
                    plan.repeat = min(plan.repeat, self._before_eviction(now))
            if not self.steady and (not self.greedy or len(self.jobs) > len(self.running) or self.ghosts):
                plan.repeat, plan.until = self._horizon(plan.repeat, now)
            if self.inbox and self._open():
                plan.repeat = 1
        return plan

    def _before_eviction(self, now: float) -> int:
        """Passes until growth takes cached content away. That can let a head in that would start on it: what it matches
        is locked on top of its first chunk, which the budget limits wherever it starts."""
        head: Any = self.queue.peek(now)
        if head is None or not head.hit:
            return FOREVER
        if self.cache is not None and head.cached_version != self.cache.version:
            return 1
        return self.lane.headroom(self.blank + self.reserved)

    def _horizon(self, repeat: int, now: float) -> tuple[int, float]:
        """How many equal passes follow for sure, and until when, as far as the policies can tell."""
        queue, until = self.queue, inf
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

    def commit(self, plan: Plan, outcome: Ended, now: float) -> Sequence[LiveJob]:
        """Book what ran; returns the jobs that are over: those that stopped by id, then those that were let go."""
        passes, stopped, first_s, advanced, _ = outcome
        self.flights.remove(plan)
        plan.live = self.decodes = False
        lane = self.lanes[plan.lane]
        if self.inbox:
            self.look_back(plan, passes, now)
        if plan.sequences:
            if self.account is not None:
                self._settle(plan, passes)
            if passes > 1 or self.lookahead:
                taken = lane.growth(passes) - plan.reserved
                self.free -= taken
                if self.cache is not None:
                    self._claim(taken)
            lane.passes += passes
            lane.context += passes * lane.count
            if advanced:
                self.correct(lane, advanced)
        self.passes += passes
        for job in plan.ends:
            self.begin(job, lane, now)
        used = self.total - self.free
        if stopped:
            if len(stopped) > 1:
                stopped.sort()
            for job in stopped:
                self.retire(job, lane, now)
            self.changed.add(self.slot)
        if self.leaving:
            stopped = stopped + self.let_go(now)
        if not plan.sequences:
            self._watch(plan, bool(stopped))
        self.log.plans.append((
            self.name, "pass", plan.start, now, passes, plan.sequences, plan.prefill_tokens,
            plan.context + plan.prefill_context, used, len(self.jobs) - len(self.running), first_s, plan.lane,
        ))  # fmt: skip
        return stopped

    def _watch(self, plan: Plan, ended: bool) -> None:
        """A run in which nothing ever moves ends with an error instead of hanging."""
        if plan.ends or ended or self.passes - self.moved < STALL_PASSES:
            if plan.ends or ended:
                self.moved = self.passes
            return
        if self.lane.passes != self.seen:  # somebody decoded meanwhile
            self.moved, self.seen = self.passes, self.lane.passes
            return
        jobs = ", ".join([str(i) for i in list(self.running)[:5]])
        raise PolicyError(f"{self._who()} makes no progress: {STALL_PASSES} passes without a token (jobs {jobs}, ...).")

    # -- what the control plane may see

    def stuck(self) -> Any:
        """Jobs that are here although nothing is in flight (for the message of the watchdog)."""
        return list(self.jobs.values())

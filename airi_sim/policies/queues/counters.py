"""Fairness in tokens really served: counters of what each tenant got, or of how often it was admitted."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from math import inf

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import Predictor
from airi_sim.core.types import FOREVER, Horizon, Job
from airi_sim.policies.queues.estimates import Prices, checked, positive
from airi_sim.policies.queues.waiting import UNBOUNDED

TICKS = 1_000_003
"""Ticks in a window of `Rpm`: a prime, so that passes of a round part of the window are not a whole number of ticks."""


class Vtc:
    """Virtual token counter (Sheng et al., OSDI 2024): the backlogged tenant served least goes first.

    A tenant pays `w_in` per prompt token when its job is first admitted and `w_out` per output token as it appears,
    both divided by its weight (`weights`, default 1). A tenant that comes back from idle is lifted to the least
    counter among the backlogged ones, so idling saves nothing up. Ties go to the smaller tenant name. Counters are
    integers, so the pass at which the head changes is exact.
    """

    timeless = False
    account: str | None = "tenant"

    def __init__(self, w_in: float = 1, w_out: float = 2, weights: Mapping[str, float] | None = None) -> None:
        self.prices = Prices(type(self).__name__, w_in, w_out, weights)
        self._counters: dict[str, int] = {}
        self._backlog: dict[str, deque[Job]] = {}
        self._returned: set[int] = set()
        self._length = 0
        self._head: str | None = None

    def counter(self, tenant: str) -> float:
        """Weighted tokens the tenant was served so far, lifts included."""
        return self._counters.get(tenant, 0) / self.prices.unit

    def push(self, job: Job, now: float) -> None:
        jobs = self._backlog.get(job.tenant)
        if jobs is None:
            self._lift(job.tenant)
            jobs = self._backlog[job.tenant] = deque()
        jobs.append(job)
        self._length += 1
        self._head = None

    def requeue(self, job: Job, now: float) -> None:
        """Back to the front of its tenant, which has paid; it was served until now, so there is nothing to lift."""
        self._returned.add(job.id)
        self._counters.setdefault(job.tenant, 0)
        self._backlog.setdefault(job.tenant, deque()).appendleft(job)
        self._length += 1
        self._head = None

    def peek(self, now: float) -> Job | None:
        return self._backlog[self._least()][0] if self._backlog else None

    def pop(self, now: float) -> Job:
        job = self._backlog[self._least()][0]
        if job.id not in self._returned:
            self._counters[job.tenant] += self.entry(job)
        self.remove(job, now)
        return job

    def entry(self, job: Job) -> int:
        """What its tenant pays when a job is first admitted."""
        return self.prices.token_in[job.tenant] * job.tokens

    def remove(self, job: Job, now: float) -> None:
        """Forget a waiting job: it was admitted or cancelled."""
        self._returned.discard(job.id)
        jobs = self._backlog[job.tenant]
        jobs.remove(job)
        if not jobs:
            del self._backlog[job.tenant]
        self._length -= 1
        self._head = None

    def serve(self, decoding: Mapping[str, int], passes: int) -> None:
        """Every decoding job of a tenant got one token in each of `passes` passes."""
        counters, price = self._counters, self.prices.token_out
        each = price.usual * passes
        for tenant, jobs in decoding.items():
            try:
                counters[tenant] += each * jobs
            except KeyError:  # its prompt was read elsewhere
                counters[tenant] = each * jobs
        for tenant, more in price.more.items():
            if tenant in decoding:
                counters[tenant] += more * passes * decoding[tenant]
        self._head = None

    def stable(self, now: float, decoding: Mapping[str, int]) -> Horizon:
        """The first pass after which another tenant is least: counters grow linearly, so one crossing per tenant."""
        head = self._least()
        mine, rate = self._counters[head], self._rate(head, decoding)
        passes = FOREVER
        for tenant in self._backlog:
            gain = rate - self._rate(tenant, decoding)
            if gain > 0:
                gap = self._counters[tenant] - mine
                crossing = -(-gap // gain) if tenant < head else gap // gain + 1
                passes = min(passes, crossing)
        return Horizon(passes)

    def _rate(self, tenant: str, decoding: Mapping[str, int]) -> int:
        return self.prices.token_out[tenant] * decoding.get(tenant, 0)

    def _least(self) -> str:
        if self._head is None:
            backlog, counters = self._backlog, self._counters
            if len(backlog) == 1:
                (self._head,) = backlog
            else:
                self._head = min([(counters[tenant], tenant) for tenant in backlog])[1]
        return self._head

    def _lift(self, tenant: str) -> None:
        counters = self._counters
        own = counters.get(tenant, 0)
        if self._backlog:
            own = max(own, min([counters[other] for other in self._backlog]))
        counters[tenant] = own

    def __len__(self) -> int:
        return self._length


class Lcf(Vtc):
    """Least counter first, the baseline of the VTC paper: as `Vtc`, but nobody is lifted. A tenant that comes back from
    idle has its low counter still, and has the server for itself until it has caught up."""

    def _lift(self, tenant: str) -> None:
        self._counters.setdefault(tenant, 0)


class PredictedVtc(Vtc):
    """VTC with length prediction (Sheng et al., OSDI 2024, section 4.4): a tenant pays for the predicted output when
    its job is first admitted, so that many jobs at once cannot run up a debt that shows only later. The difference to
    what came out is settled when the job is over. `predictor` None learns from what finished (History). Timeless:
    nothing is booked in between.
    """

    timeless = True
    account: str | None = None

    def __init__(
        self,
        w_in: float = 1,
        w_out: float = 2,
        weights: Mapping[str, float] | None = None,
        predictor: Predictor | None = None,
    ) -> None:
        super().__init__(w_in, w_out, weights)
        self.predictor = checked(predictor, "PredictedVtc")
        self._paid: dict[int, int] = {}

    def entry(self, job: Job) -> int:
        tokens = self._paid[job.id] = max(1, round(self.predictor.predict(job)))
        return super().entry(job) + self.prices.token_out[job.tenant] * tokens

    def over(self, job: Job, tokens_out: int, now: float) -> None:
        """Settle, and learn."""
        paid = self._paid.pop(job.id, tokens_out)
        owed = (tokens_out - paid) * self.prices.token_out[job.tenant]
        self._counters[job.tenant] = self._counters.get(job.tenant, 0) + owed
        self._head = None
        self.predictor.learn(job, tokens_out)


class Rpm:
    """Requests per minute (the usual limit of public services, and a baseline of the VTC paper): first come, first
    served among the tenants that had fewer than `limit` jobs admitted in the last `window_s` seconds. Others are held
    back even if the server is idle, which is what such limits cost; to turn them away use an admission policy.

    The order changes by itself when a tenant that came earlier is below its limit again: just after the oldest of its
    last `limit` admissions leaves the window. An admission counts from the end of its tick (a millionth of the window)
    on, never less than a whole window. A preempted job has been counted and goes first.
    """

    timeless = False
    account: str | None = None

    def __init__(self, limit: int = 30, window_s: float = 60.0) -> None:
        if limit < 1:
            raise BadInput(f"limit of Rpm is {limit} and must be at least 1 job in each window.")
        self.limit, self.window_s = limit, positive("window_s of Rpm", window_s)
        self._tick = window_s / TICKS
        self._back: deque[Job] = deque()
        self._waiting: dict[str, deque[tuple[int, Job]]] = {}
        self._admitted: dict[str, deque[float]] = {}
        self._pushed = self._length = 0

    def push(self, job: Job, now: float) -> None:
        self._pushed += 1
        self._length += 1
        self._waiting.setdefault(job.tenant, deque()).append((self._pushed, job))

    def requeue(self, job: Job, now: float) -> None:
        self._length += 1
        self._back.appendleft(job)

    def held_until(self, tenant: str) -> float:
        """The last moment (seconds) at which the tenant is over its limit."""
        times = self._admitted.get(tenant)
        return times[0] + self.window_s if times is not None and len(times) == self.limit else -inf

    def _counted(self, now: float) -> float:
        # A server woken when a hold ends repeats its passes a window later: without ticks the next pass would begin
        # just when the next hold ends, and rounding would say which is first.
        return (now // self._tick + 1) * self._tick

    def peek(self, now: float) -> Job | None:
        if self._back:
            return self._back[0]
        ready = [jobs[0] for tenant, jobs in self._waiting.items() if now > self.held_until(tenant)]
        return min(ready)[1] if ready else None

    def pop(self, now: float) -> Job:
        job = self.peek(now)
        if job is None:
            raise IndexError("pop from a queue that holds all its jobs back")
        if not self._back:
            self._admitted.setdefault(job.tenant, deque(maxlen=self.limit)).append(self._counted(now))
        self.remove(job, now)
        return job

    def remove(self, job: Job, now: float) -> None:
        """Forget a waiting job: it was admitted or cancelled."""
        self._length -= 1
        if job in self._back:
            self._back.remove(job)
            return
        jobs = self._waiting[job.tenant]
        jobs.remove(next(entry for entry in jobs if entry[1] is job))
        if not jobs:
            del self._waiting[job.tenant]

    def stable(self, now: float, decoding: Mapping[str, int]) -> Horizon:
        """Until the first tenant that is held back now and came before the head."""
        if self._back:
            return UNBOUNDED
        head = self.peek(now)
        untils = [
            until
            for tenant, jobs in self._waiting.items()
            if now <= (until := self.held_until(tenant)) and (head is None or jobs[0][1] is not head)
        ]
        return Horizon(FOREVER, min(untils, default=inf))

    def __len__(self) -> int:
        return self._length

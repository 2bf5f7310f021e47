"""Who is next. One small class a rule; the gateway and every replica use the same ones.

Orders that a waiting job cannot change by waiting are `timeless`; the others say exactly for how long their head stays
the head (`stable`), which is what lets a server run many passes without asking again. Ties go to the smaller id.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from fractions import Fraction
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf, lcm
from typing import Any

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import Predictor
from airi_sim.core.types import FOREVER, Horizon, Job

Entry = tuple[Any, int, int, Job]
"""Of a heap: key, job id, number of the stay, job. An entry whose stay is over is void and dropped when it surfaces."""

SLACK = 64
UNBOUNDED = Horizon(FOREVER)


def _top(heap: list[Entry], stays: Mapping[int, int]) -> Entry:
    """The smallest entry that still counts; there must be one."""
    while stays.get(heap[0][1]) != heap[0][2]:
        heappop(heap)
    return heap[0]


def _insert(heap: list[Entry], entry: Entry, stays: Mapping[int, int]) -> None:
    """Push, and once void entries are the majority, drop them all: memory follows the jobs that wait."""
    if len(heap) > 2 * len(stays) + SLACK:
        heap[:] = [old for old in heap if stays.get(old[1]) == old[2]]
        heapify(heap)
    heappush(heap, entry)


class Fcfs:
    """First come, first served; a preempted job goes back to the front. What vLLM, SGLang and TGI do by default."""

    timeless = True
    account: str | None = None

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()

    def push(self, job: Job, now: float) -> None:
        self._jobs.append(job)

    def requeue(self, job: Job, now: float) -> None:
        self._jobs.appendleft(job)

    def peek(self, now: float) -> Job | None:
        return self._jobs[0] if self._jobs else None

    def pop(self, now: float) -> Job:
        return self._jobs.popleft()

    def remove(self, job: Job, now: float) -> None:
        """Forget a waiting job that was cancelled."""
        self._jobs.remove(job)

    def __len__(self) -> int:
        return len(self._jobs)


class Sjf:
    """Shortest job first, not preemptive (SSJF, arXiv:2306.03503): fewest tokens to process, else fewest predicted.

    `predictor` None orders by `job.tokens`, else by `predictor.predict(job)`, asked once when the job comes. A
    preempted job is as long as what it must process again. Long jobs may starve.
    """

    timeless = True
    account: str | None = None

    def __init__(self, predictor: Predictor | None = None) -> None:
        if predictor is not None and not callable(getattr(predictor, "predict", None)):
            raise BadInput(f"the predictor of Sjf must have a method predict(job), and {predictor!r} has none.")
        self.predictor = predictor
        self._heap: list[Entry] = []
        self._stays: dict[int, int] = {}
        self._numbers = count()

    def push(self, job: Job, now: float) -> None:
        stay = self._stays[job.id] = next(self._numbers)
        size = job.tokens if self.predictor is None else self.predictor.predict(job)
        _insert(self._heap, (size, job.id, stay, job), self._stays)

    requeue = push

    def peek(self, now: float) -> Job | None:
        return _top(self._heap, self._stays)[3] if self._stays else None

    def pop(self, now: float) -> Job:
        job = _top(self._heap, self._stays)[3]
        heappop(self._heap)
        del self._stays[job.id]
        return job

    def remove(self, job: Job, now: float) -> None:
        """Forget a waiting job that was cancelled."""
        del self._stays[job.id]

    def __len__(self) -> int:
        return len(self._stays)


class PriorityAging:
    """Lowest priority number first, then arrival; who waits longer than `patience` seconds goes before all others,
    oldest first. A step instead of linear aging: nobody starves, and within patience priority is absolute.

    The order changes by itself only when the oldest job turns impatient, so that instant is the horizon.
    """

    timeless = False
    account: str | None = None

    def __init__(self, patience: float = 30.0) -> None:
        if not patience > 0:
            raise BadInput(f"patience of PriorityAging is {patience} s and must be more than 0.")
        self.patience = patience
        self._urgent: list[Entry] = []
        self._oldest: list[Entry] = []
        self._stays: dict[int, int] = {}
        self._numbers = count()

    def push(self, job: Job, now: float) -> None:
        stay = self._stays[job.id] = next(self._numbers)
        _insert(self._urgent, ((job.priority, job.arrived), job.id, stay, job), self._stays)
        _insert(self._oldest, (job.arrived, job.id, stay, job), self._stays)

    requeue = push

    def peek(self, now: float) -> Job | None:
        if not self._stays:
            return None
        oldest = _top(self._oldest, self._stays)
        if now > oldest[0] + self.patience:
            return oldest[3]
        return _top(self._urgent, self._stays)[3]

    def pop(self, now: float) -> Job:
        job = self.peek(now)
        if job is None:
            raise IndexError("pop from an empty queue")
        del self._stays[job.id]
        return job

    def remove(self, job: Job, now: float) -> None:
        """Forget a waiting job that was cancelled."""
        del self._stays[job.id]

    def stable(self, now: float, decoding: Mapping[str, int]) -> Horizon:
        """Until the oldest job turns impatient, unless it is the head already."""
        oldest = _top(self._oldest, self._stays)
        impatient = oldest[0] + self.patience
        if now > impatient or oldest[3] is _top(self._urgent, self._stays)[3]:
            return UNBOUNDED
        return Horizon(FOREVER, impatient)

    def __len__(self) -> int:
        return len(self._stays)


class Vtc:
    """Virtual token counter (Sheng et al., OSDI 2024): the backlogged tenant served least goes first.

    A tenant pays `w_in` per prompt token when its job is first admitted and `w_out` per output token as it appears,
    both divided by its weight (`weights`, default 1). A tenant that comes back from idle is lifted to the least
    counter among the backlogged ones, so idling saves nothing up. Ties go to the smaller tenant name. Counters are
    integers in the smallest unit all prices share: k passes booked at once equal k passes booked one by one, and the
    pass at which the head changes is exact.
    """

    timeless = False
    account: str | None = "tenant"

    def __init__(self, w_in: float = 1, w_out: float = 2, weights: Mapping[str, float] | None = None) -> None:
        shares = {tenant: _positive(f"weight of tenant '{tenant}'", w) for tenant, w in (weights or {}).items()}
        per_in, per_out = _positive("w_in", w_in), _positive("w_out", w_out)
        exact = {tenant: (per_in / share, per_out / share) for tenant, share in shares.items()}
        self.unit = lcm(*(price.denominator for pair in [*exact.values(), (per_in, per_out)] for price in pair))
        self._default = int(per_in * self.unit), int(per_out * self.unit)
        self._prices = {tenant: (int(i * self.unit), int(o * self.unit)) for tenant, (i, o) in exact.items()}
        self._counters: dict[str, int] = {}
        self._backlog: dict[str, deque[Job]] = {}
        self._length = 0
        self._head: str | None = None

    def counter(self, tenant: str) -> float:
        """Weighted tokens the tenant was served so far, lifts included."""
        return self._counters.get(tenant, 0) / self.unit

    def push(self, job: Job, now: float) -> None:
        jobs = self._backlog.get(job.tenant)
        if jobs is None:
            self._lift(job.tenant)
            jobs = self._backlog[job.tenant] = deque()
        jobs.append(job)
        self._length += 1
        self._head = None

    def requeue(self, job: Job, now: float) -> None:
        """Back to the front of its tenant; it was being served until now, so there is nothing to lift."""
        self._counters.setdefault(job.tenant, 0)
        self._backlog.setdefault(job.tenant, deque()).appendleft(job)
        self._length += 1
        self._head = None

    def peek(self, now: float) -> Job | None:
        return self._backlog[self._least()][0] if self._backlog else None

    def pop(self, now: float) -> Job:
        job = self._backlog[self._least()][0]
        if not job.preemptions:
            self._counters[job.tenant] += self._prices.get(job.tenant, self._default)[0] * job.tokens
        self.remove(job, now)
        return job

    def remove(self, job: Job, now: float) -> None:
        """Forget a waiting job: it was admitted or cancelled."""
        jobs = self._backlog[job.tenant]
        jobs.remove(job)
        if not jobs:
            del self._backlog[job.tenant]
        self._length -= 1
        self._head = None

    def serve(self, decoding: Mapping[str, int], passes: int) -> None:
        """Every decoding job of a tenant got one token in each of `passes` passes."""
        counters, prices, default = self._counters, self._prices, self._default
        for tenant, jobs in decoding.items():
            counters[tenant] = counters.get(tenant, 0) + prices.get(tenant, default)[1] * jobs * passes
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
        return self._prices.get(tenant, self._default)[1] * decoding.get(tenant, 0)

    def _least(self) -> str:
        if self._head is None:
            counters = self._counters
            self._head = min([(counters[tenant], tenant) for tenant in self._backlog])[1]
        return self._head

    def _lift(self, tenant: str) -> None:
        floor = min((self._counters[other] for other in self._backlog), default=0)
        self._counters[tenant] = max(self._counters.get(tenant, 0), floor)

    def __len__(self) -> int:
        return self._length


def _positive(what: str, value: float) -> Fraction:
    """As an exact fraction, so that 0.1 is a tenth."""
    if not 0 < value < inf or not (exact := Fraction(value).limit_denominator(1_000_000)):
        raise BadInput(f"{what} of Vtc is {value} and must be a positive number, one millionth at least.")
    return exact

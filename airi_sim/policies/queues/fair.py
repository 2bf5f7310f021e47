"""Fair queueing as networks know it: tenants share by weight what a job costs when it is admitted. The cost is paid
then and not again, so these orders are timeless; what a job really takes is known only to the queues of counters.py.

Where outputs matter their length is predicted. A preempted job has been paid for: it goes back before all others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from math import ceil
from typing import Any

from airi_sim.core.protocols import Predictor
from airi_sim.core.types import Job
from airi_sim.policies.queues.estimates import Cost, Shares, positive
from airi_sim.policies.queues.waiting import Keyed


class Sfq(Keyed):
    """Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996). A job starts, in virtual time, when the last one
    of its tenant finishes or now, whichever is later; it finishes cost / weight after that; the least start goes first,
    and virtual time is the start tag of whoever was admitted last. Between two tenants that both wait, admitted cost /
    weight differs by at most one job of each. Cost: `w_in` a token to process and `w_out` a predicted token to come.
    A job that is cancelled while it waits costs nothing if none of its tenant came after it; else later tags stand.
    """

    def __init__(
        self,
        weights: Mapping[str, float] | None = None,
        w_in: float = 1.0,
        w_out: float = 2.0,
        predictor: Predictor | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.cost = Cost(name, w_in, w_out, predictor)
        self.predictor = self.cost.predictor
        self.shares = Shares(name, weights)
        self._virtual = 0.0
        self._finish: dict[str, float] = {}
        self._booked: dict[int, tuple[float, float]] = {}

    def tag(self, start: float, finish: float) -> float:
        """The tag that orders, and that virtual time follows."""
        return start

    def key(self, job: Job, now: float) -> Any:
        before = self._finish.get(job.tenant, 0.0)
        start = max(self._virtual, before)
        finish = self._finish[job.tenant] = start + self.cost(job) / self.shares[job.tenant]
        self._booked[job.id] = before, finish
        return self.tag(start, finish), 1

    def requeue(self, job: Job, now: float) -> None:
        """It has been paid for, and goes first: nobody has an earlier tag than virtual time."""
        self.waiting.push(job, (self._virtual, 0))

    def pop(self, now: float) -> Job:
        self._virtual = max(self._virtual, self.waiting.top()[0][0])
        job = super().pop(now)
        self._booked.pop(job.id, None)
        return job

    def remove(self, job: Job, now: float) -> None:
        """Forget a waiting job that was cancelled, and its cost if it was the last that its tenant was charged for."""
        super().remove(job, now)
        before, finish = self._booked.pop(job.id, (0.0, None))
        if finish == self._finish.get(job.tenant):
            self._finish[job.tenant] = before

    def over(self, job: Job, tokens_out: int, now: float) -> None:
        """What predictors learn from."""
        self.predictor.learn(job, tokens_out)


class Wfq(Sfq):
    """Weighted fair queueing (Demers, Keshav and Shenker, SIGCOMM 1989) with self-clocked virtual time (Golestani,
    INFOCOM 1994): as `Sfq`, but the least finish tag goes first, so that small jobs of a tenant that was idle get in
    sooner, and virtual time is the finish tag of whoever was admitted last."""

    def tag(self, start: float, finish: float) -> float:
        return finish


class Backlog:
    """Waiting jobs by tenant, first come first served within, and in front of all the preempted ones."""

    def __init__(self) -> None:
        self.back: deque[Job] = deque()
        self.tenants: dict[str, deque[Job]] = {}
        self.length = 0

    def push(self, job: Job) -> bool:
        """True if its tenant had nobody waiting."""
        self.length += 1
        fresh = job.tenant not in self.tenants
        self.tenants.setdefault(job.tenant, deque()).append(job)
        return fresh

    def requeue(self, job: Job) -> None:
        """A preempted job goes before all others."""
        self.length += 1
        self.back.appendleft(job)

    def remove(self, job: Job) -> bool:
        """True if it was the last of its tenant (the preempted ones aside)."""
        self.length -= 1
        if job in self.back:
            self.back.remove(job)
            return False
        jobs = self.tenants[job.tenant]
        jobs.remove(job)
        if not jobs:
            del self.tenants[job.tenant]
        return not jobs


class Stride:
    """Stride scheduling (Waldspurger and Weihl, MIT/LCS/TM-528, 1995). The tenant with the least pass goes first, and
    its pass advances by one job / weight: tenants that wait get jobs admitted in proportion to their weights, whatever
    the jobs cost. Who comes back from idle starts at the pass that was served last. Timeless."""

    timeless = True
    account: str | None = None

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self.shares = Shares("Stride", weights)
        self.waiting = Backlog()
        self._pass: dict[str, float] = {}
        self._served = 0.0

    def push(self, job: Job, now: float) -> None:
        if self.waiting.push(job):
            self._pass[job.tenant] = max(self._pass.get(job.tenant, 0.0), self._served)

    def requeue(self, job: Job, now: float) -> None:
        self.waiting.requeue(job)

    def peek(self, now: float) -> Job | None:
        if self.waiting.back:
            return self.waiting.back[0]
        least = min(((self._pass[tenant], tenant) for tenant in self.waiting.tenants), default=None)
        return None if least is None else self.waiting.tenants[least[1]][0]

    def pop(self, now: float) -> Job:
        job = self.peek(now)
        if job is None:
            raise IndexError("pop from an empty queue")
        if not self.waiting.back:
            self._served = self._pass[job.tenant]
            self._pass[job.tenant] += 1 / self.shares[job.tenant]
        self.remove(job, now)
        return job

    def remove(self, job: Job, now: float) -> None:
        """Forget a waiting job: it was admitted or cancelled."""
        self.waiting.remove(job)

    def __len__(self) -> int:
        return self.waiting.length


class Drr:
    """Deficit round robin (Shreedhar and Varghese, SIGCOMM 1995). Tenants that wait take turns; a turn adds `quantum` *
    weight to the tenant's deficit and admits its jobs as long as the deficit covers their cost; who has no job left
    loses what it saved. Between two tenants that both wait, admitted cost differs by at most a quantum and two of the
    largest jobs. Cost as for `Sfq`. Timeless.
    """

    timeless = True
    account: str | None = None

    def __init__(
        self,
        quantum: float = 4096.0,
        weights: Mapping[str, float] | None = None,
        w_in: float = 1.0,
        w_out: float = 2.0,
        predictor: Predictor | None = None,
    ) -> None:
        self.quantum = positive("quantum of Drr", quantum)
        self.cost = Cost("Drr", w_in, w_out, predictor)
        self.predictor = self.cost.predictor
        self.shares = Shares("Drr", weights)
        self.waiting = Backlog()
        self._costs: dict[int, float] = {}
        self._ring: deque[str] = deque()
        self._deficit: dict[str, float] = {}
        self._begun = False
        self._next: tuple[int, int] | None = None

    def push(self, job: Job, now: float) -> None:
        self._costs[job.id] = self.cost(job)
        if self.waiting.push(job):
            self._ring.append(job.tenant)
            self._deficit[job.tenant] = 0.0
        self._next = None

    def requeue(self, job: Job, now: float) -> None:
        self.waiting.requeue(job)

    def peek(self, now: float) -> Job | None:
        if self.waiting.back:
            return self.waiting.back[0]
        return self._first(self._ring[self._turn()[1]]) if self._ring else None

    def pop(self, now: float) -> Job:
        job = self.peek(now)
        if job is None:
            raise IndexError("pop from an empty queue")
        if not self.waiting.back:
            self._advance()
            self._deficit[job.tenant] -= self._costs[job.id]
        self.remove(job, now)
        return job

    def remove(self, job: Job, now: float) -> None:
        """Forget a waiting job: it was admitted or cancelled."""
        self._costs.pop(job.id, None)
        if self.waiting.remove(job):
            self._begun = self._begun and self._ring[0] != job.tenant
            self._ring.remove(job.tenant)
        if self._begun and self._lacks(self._ring[0]) > 0:
            self._ring.rotate(-1)
            self._begun = False
        self._next = None

    def over(self, job: Job, tokens_out: int, now: float) -> None:
        """What predictors learn from."""
        self.predictor.learn(job, tokens_out)

    def _first(self, tenant: str) -> Job:
        return self.waiting.tenants[tenant][0]

    def _lacks(self, tenant: str) -> float:
        """What the tenant's deficit is short of its first job."""
        return self._costs[self._first(tenant).id] - self._deficit[tenant]

    def _share(self, tenant: str) -> float:
        return self.quantum * self.shares[tenant]

    def _turn(self) -> tuple[int, int]:
        """(turns, place in the ring) of the tenant that is next: the first to afford its first job, each turn adding a
        quantum, from the front of the ring. It is the front, without a turn, if that one's turn has begun."""
        if self._next is None:
            turns = [max(1, ceil(self._lacks(tenant) / self._share(tenant))) for tenant in self._ring]
            self._next = (0, 0) if self._begun else min((n, place) for place, n in enumerate(turns))
        return self._next

    def _advance(self) -> None:
        """Let all turns pass until that of the next tenant has begun."""
        turns, place = self._turn()
        if not self._begun:
            for i, tenant in enumerate(self._ring):
                self._deficit[tenant] += (turns if i <= place else turns - 1) * self._share(tenant)
            self._ring.rotate(-place)
            self._begun = True

    def __len__(self) -> int:
        return self.waiting.length

"""Fair and close to the cache: which prefix is likely still there decides among tenants whose turn it is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from itertools import islice

from airi_sim.core.errors import BadInput
from airi_sim.core.types import FOREVER, Horizon, Job
from airi_sim.policies.queues.estimates import Prices


class Dlpm:
    """Deficit longest prefix match (Cao et al., arXiv:2501.14312). Among the tenants whose deficit is above 0, the job
    with the longest cached prefix goes first. A tenant pays `w_in` for each prompt token not in the cache when its job
    is admitted and `w_out` for each output token as it appears, both divided by its weight; when no tenant that waits
    has any deficit left, each gets `quantum`. A larger quantum means more hits and less fairness.

    The queue does not see the cache. It believes that the last `capacity` prefix ids it admitted are there. Only the
    `window` oldest jobs are looked at (SGLang does likewise); if none of them is of a tenant with deficit, the oldest
    job of one that has. A preempted job is not charged for its prompt again, and goes by the same rule.

    The head can only change when its tenant has used up its deficit: output tokens take from it at a steady rate, so
    that pass is the horizon.
    """

    timeless = False
    account: str | None = "tenant"

    def __init__(
        self,
        quantum: float = 4096,
        w_in: float = 1,
        w_out: float = 2,
        weights: Mapping[str, float] | None = None,
        window: int = 128,
        capacity: int = 1_000_000,
    ) -> None:
        if quantum < 1 or window < 1 or capacity < 1:
            raise BadInput(
                f"Dlpm needs quantum, window and capacity of at least 1, not {quantum}, {window} and {capacity}."
            )
        self.prices = Prices("Dlpm", w_in, w_out, weights)
        self.quantum, self.window, self.capacity = int(quantum * self.prices.unit), window, capacity
        self._jobs: OrderedDict[int, Job] = OrderedDict()
        self._returned: set[int] = set()
        self._waiting: dict[str, int] = {}
        self._deficit: dict[str, int] = {}
        self._cached: OrderedDict[int, None] = OrderedDict()
        self._head: Job | None = None
        self._round = 0

    def deficit(self, tenant: str) -> float:
        """Weighted tokens the tenant may still take in this round."""
        return self._deficit.get(tenant, 0) / self.prices.unit

    def push(self, job: Job, now: float) -> None:
        self._jobs[job.id] = job
        self._enter(job)

    def requeue(self, job: Job, now: float) -> None:
        """A preempted job counts as the oldest, and has paid."""
        self._returned.add(job.id)
        self._jobs[job.id] = job
        self._jobs.move_to_end(job.id, last=False)
        self._enter(job)

    def _enter(self, job: Job) -> None:
        self._waiting[job.tenant] = self._waiting.get(job.tenant, 0) + 1
        self._deficit.setdefault(job.tenant, 0)
        self._head = None

    def peek(self, now: float) -> Job | None:
        if self._head is None and self._jobs:
            rounds = self._round = self._rounds()
            able = {tenant for tenant in self._waiting if self._left(tenant, rounds) > 0}
            near = [job for job in islice(self._jobs.values(), self.window) if job.tenant in able]
            if near:
                self._head = max(near, key=self.matched)
            else:
                self._head = next(job for job in self._jobs.values() if job.tenant in able)
        return self._head

    def pop(self, now: float) -> Job:
        job = self.peek(now)
        if job is None:
            raise IndexError("pop from an empty queue")
        for tenant in self._waiting:
            self._deficit[tenant] = self._left(tenant, self._round)
        if job.id not in self._returned:
            self._deficit[job.tenant] -= self.prices.token_in[job.tenant] * (job.tokens - self.matched(job))
        self._remember(job)
        self.remove(job, now)
        return job

    def remove(self, job: Job, now: float) -> None:
        """Forget a waiting job: it was admitted or cancelled. Who has nobody left waiting saves nothing up."""
        del self._jobs[job.id]
        self._returned.discard(job.id)
        self._waiting[job.tenant] -= 1
        if not self._waiting[job.tenant]:
            del self._waiting[job.tenant]
            self._deficit[job.tenant] = min(0, self._deficit[job.tenant])
        self._head = None

    def serve(self, decoding: Mapping[str, int], passes: int) -> None:
        """Every decoding job of a tenant got one token in each of `passes` passes."""
        for tenant, jobs in decoding.items():
            price = self.prices.token_out[tenant]
            self._deficit[tenant] = self._deficit.get(tenant, 0) - price * jobs * passes
        if self._head is not None and self._left(self._head.tenant, self._round) <= 0:
            self._head = None

    def stable(self, now: float, decoding: Mapping[str, int]) -> Horizon:
        """Until the head's tenant has used up its deficit; what the others lose makes them no more eligible."""
        head = self.peek(now)
        if head is None:
            return Horizon(FOREVER)
        rate = self.prices.token_out[head.tenant] * decoding.get(head.tenant, 0)
        return Horizon(-(-self._left(head.tenant, self._round) // rate) if rate else FOREVER)

    def matched(self, job: Job) -> int:
        """Prompt tokens believed to be cached: the share of its prefix ids, in order, that were admitted before."""
        if not job.prefix:
            return 0
        found = next((i for i, unit in enumerate(job.prefix) if unit not in self._cached), len(job.prefix))
        return job.prompt * found // len(job.prefix)

    def _remember(self, job: Job) -> None:
        for unit in job.prefix:
            self._cached[unit] = None
            self._cached.move_to_end(unit)
        while len(self._cached) > self.capacity:
            self._cached.popitem(last=False)

    def _rounds(self) -> int:
        """Quanta that everybody gets before somebody who waits has a deficit above 0."""
        return min(max(0, -self._deficit[tenant] // self.quantum + 1) for tenant in self._waiting)

    def _left(self, tenant: str, rounds: int) -> int:
        return self._deficit[tenant] + rounds * self.quantum

    def __len__(self) -> int:
        return len(self._jobs)

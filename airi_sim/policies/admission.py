"""May this job enter now, later, or never, and why. Asked at the gateway, before anything else."""

from __future__ import annotations

from math import inf, nextafter

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import View
from airi_sim.core.types import FOREVER, Job, Verdict

WELCOME = Verdict(True)


class Always:
    """Everybody enters at once. `always` spares the gateway the question (and the log a row a request)."""

    always = True

    def admit(self, job: Job, view: View, now: float) -> Verdict:
        return WELCOME


class TokenBucket:
    """`rate` tokens per second, `capacity` tokens at once: in any window of t seconds at most capacity + rate*t enter.

    A job costs its `tokens`, with `charge_output` also its `budget` if the user set one. What is too large for the
    bucket is rejected; what is only too early waits (`wait`) or is rejected. With `per_tenant` each tenant has a
    bucket of its own. Kept as one number a bucket, the time at which it will be full again (GCRA, ITU-T I.371). A job
    told to wait has its tokens set aside, so it is asked once more, enters then, and nobody overtakes it; if it is
    cancelled meanwhile they are lost to its tenant.
    """

    def __init__(
        self, rate: float, capacity: float, per_tenant: bool = True, wait: bool = True, charge_output: bool = True
    ) -> None:
        if not 0 < rate < inf:
            raise BadInput(f"rate of TokenBucket is {rate} tokens/s and must be more than 0 and finite.")
        if not 1 <= capacity < inf:
            raise BadInput(f"capacity of TokenBucket is {capacity} tokens and must be at least 1 and finite.")
        self.rate = rate
        self.capacity = capacity
        self.per_tenant = per_tenant
        self.wait = wait
        self.charge_output = charge_output
        self._full_at: dict[str, float] = {}
        self._promised: dict[int, float] = {}

    def admit(self, job: Job, view: View, now: float) -> Verdict:
        enters = self._promised.pop(job.id, None)
        if enters is not None:
            return self._verdict(job, enters, now)
        cost = self._cost(job)
        if cost > self.capacity:
            return Verdict(False, None, f"{cost} tokens never fit into a bucket of {self.capacity:g}")
        bucket = job.tenant if self.per_tenant else ""
        full_at = max(now, self._full_at.get(bucket, now))
        enters = full_at - (self.capacity - cost) / self.rate
        if enters > now and not self.wait:
            return Verdict(False, None, f"over {self.rate:g} tokens/s")
        self._full_at[bucket] = full_at + cost / self.rate
        return self._verdict(job, enters, now)

    def _verdict(self, job: Job, enters: float, now: float) -> Verdict:
        if enters <= now:
            return WELCOME
        self._promised[job.id] = enters
        wait_s = enters - now
        while now + wait_s < enters:  # rounding: it would come back a hair too early
            wait_s = nextafter(wait_s, inf)
        return Verdict(False, wait_s, f"over {self.rate:g} tokens/s")

    def _cost(self, job: Job) -> int:
        return job.tokens + (job.budget if self.charge_output and job.budget < FOREVER else 0)

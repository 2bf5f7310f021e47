"""Admission by what a tenant may use: so many tokens a second, or in every window."""

from __future__ import annotations

from math import inf, nextafter

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import View
from airi_sim.core.types import FOREVER, Job, Verdict
from airi_sim.policies.admission.common import WELCOME


def cost(job: Job, charge_output: bool) -> int:
    """Prompt tokens, and the output budget if the user set one and it is charged."""
    return job.tokens + (job.budget if charge_output and job.budget < FOREVER else 0)


def until(at: float, now: float) -> float:
    """Seconds to wait so that it is not before `at` when asked again: rounding may make a plain difference fall short
    by a hair."""
    wait_s = at - now
    while now + wait_s < at:
        wait_s = nextafter(wait_s, inf)
    return wait_s


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
        price = cost(job, self.charge_output)
        if price > self.capacity:
            return Verdict(False, None, f"{price} tokens never fit into a bucket of {self.capacity:g}")
        bucket = job.tenant if self.per_tenant else ""
        full_at = max(now, self._full_at.get(bucket, now))
        enters = full_at - (self.capacity - price) / self.rate
        if enters > now and not self.wait:
            return Verdict(False, None, f"over {self.rate:g} tokens/s")
        self._full_at[bucket] = full_at + price / self.rate
        return self._verdict(job, enters, now)

    def _verdict(self, job: Job, enters: float, now: float) -> Verdict:
        if enters <= now:
            return WELCOME
        self._promised[job.id] = enters
        return Verdict(False, until(enters, now), f"over {self.rate:g} tokens/s")


class Quota:
    """`tokens` for each tenant in every window of `window_s` seconds, counted from the start of the run.

    A job costs its prompt, with `charge_output` also the output budget its user set. Once the quota does not suffice,
    jobs are rejected, or with `wait` asked again when the next window begins (an allowance a day, an hour); smaller
    ones may still get in. A job over the whole quota is always rejected. Users may spend two quotas around the end of
    a window; a token bucket does not have that edge.
    """

    def __init__(self, tokens: int, window_s: float = 3600.0, wait: bool = False, charge_output: bool = True) -> None:
        if tokens < 1 or not 0 < window_s < inf:
            raise BadInput("Quota needs at least 1 token and a window of more than 0 seconds.")
        self.tokens = tokens
        self.window_s = window_s
        self.wait = wait
        self.charge_output = charge_output
        self._window = 0
        self._used: dict[str, int] = {}

    def admit(self, job: Job, view: View, now: float) -> Verdict:
        window = int(now / self.window_s)
        if window > self._window:
            self._window, self._used = window, {}
        price = cost(job, self.charge_output)
        used = self._used.get(job.tenant, 0) + price
        if used <= self.tokens:
            self._used[job.tenant] = used
            return WELCOME
        reason = f"over {self.tokens} tokens in {self.window_s:g} s"
        if not self.wait or price > self.tokens:
            return Verdict(False, None, reason)
        return Verdict(False, until(self._next(now), now), reason)

    def _next(self, now: float) -> float:
        """When the next window begins: the first moment that counts as in it."""
        at = (self._window + 1) * self.window_s
        while int(at / self.window_s) <= self._window:
            at = nextafter(at, inf)
        return at

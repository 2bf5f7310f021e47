"""Books that must balance on every path: Little's law per server, per tenant and for KV tokens; token buckets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from airi_sim.engine.driver import Driver
from airi_sim.policies.admission import TokenBucket
from airi_sim.policies.routers import Jsq, Random
from airi_sim.workbench.theory.families.lockstep import lengths
from airi_sim.workbench.theory.families.one_server import customers
from airi_sim.workbench.theory.rig import Customers, PassCost, Slots, Station, Tokens, Trace, generate, poisson, run
from airi_sim.workbench.theory.rows import BOUND, Claim, Experiment, Sample
from airi_sim.workbench.theory.sizes import exponential

TENANTS = ("a", "b", "c")
NOISE = 1e-9
"""Relative: what rounding may do to sums of a hundred thousand terms."""


def experiments() -> list[Experiment]:
    """One run each: nothing here is left to chance."""
    return [_little("random", lambda: Random(7)), _little("shortest queue", Jsq), _kv_tokens(), _bucket()]


class Census:
    """The jobs at every server and of every tenant, integrated over time from what the servers hold, event by event."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.last = 0.0

    def prepare(self, driver: Driver) -> None:
        """Look before everything that changes who is where."""
        runtime: Any = driver.runtime
        self.servers = runtime.servers
        arrive, finish = runtime.arrive, runtime.finish

        def arriving(request: Any, now: float) -> None:
            self.count(now)
            arrive(request, now)

        def finishing(plan: Any, outcome: Any, now: float) -> None:
            self.count(now)
            finish(plan, outcome, now)

        runtime.arrive, runtime.finish = arriving, finishing

    def count(self, now: float) -> None:
        """Book the time since the last look."""
        for server in self.servers:
            for job in server.jobs.values():
                self.seconds[server.name] += now - self.last
                self.seconds[job.tenant] += now - self.last
        self.last = now


def _little(what: str, router: Callable[[], Any]) -> Experiment:
    def sample(rng: np.random.Generator, n: int) -> Sample:
        plain = customers(rng, 2.4, exponential(), n)
        tenants = rng.choice(TENANTS, n, p=[0.6, 0.3, 0.1]).tolist()
        census = Census()
        who = Customers(plain.arrivals, plain.sizes, tenants=tenants)
        trace = run([Station(Slots(), replicas=3, router=router)], who, prepare=census.prepare)
        return Sample(
            {"server": _off(census, _stays(trace, "server")), "tenant": _off(census, _stays(trace, "tenant"))}
        )

    claims = tuple(
        Claim(by, f"Little's law by {by}, {what}", 0.0, "Little 1961", unit="relative", absolute=NOISE,
              note="jobs there, integrated over time, against the sum of their sojourns; the worst one")
        for by in ("server", "tenant")
    )  # fmt: skip
    return Experiment(f"Little's law, {what}", sample, claims, 10_000, replications=1, quick=True)


def _stays(trace: Trace, by: str) -> dict[str, float]:
    """Seconds spent by all jobs of a server or a tenant, from the tables."""
    owner = {row[0]: row[1] for row in trace.log.requests}
    stays: dict[str, float] = defaultdict(float)
    for row in trace.log.jobs:
        stays[row[5] if by == "server" else owner[row[1]]] += row[9] - row[6]
    return stays


def _off(census: Census, stays: dict[str, float]) -> float:
    return max(abs(census.seconds[name] / total - 1) for name, total in stays.items())


def _kv_tokens() -> Experiment:
    """A job of k passes holds its prompt token in the first, and i tokens before its pass i + 1."""
    seconds = 1e-3

    def sample(rng: np.random.Generator, n: int) -> Sample:
        outputs = lengths(exponential(), 300, rng, n)
        who = Customers(poisson(rng, 2.0, n), np.ones(n, dtype=np.int64), outputs)
        trace = run([Station(Tokens(PassCost(seconds)), "generate")], who, generate)
        held = sum([row[4] * row[7] + row[5] * row[4] * (row[4] - 1) // 2 for row in trace.log.plans])
        needed = sum([1 + k * (k - 1) // 2 for k in outputs.tolist()])
        return Sample({"off": held / needed - 1})

    claim = Claim("off", "Little's law for KV tokens", 0.0, "Little 1961", unit="relative", absolute=NOISE,
                  note="tokens held, summed over passes, against what each job must hold")  # fmt: skip
    return Experiment("Little's law, KV tokens", sample, (claim,), 4_000, replications=1, quick=True)


def _bucket(rate: float = 10.0, capacity: float = 100.0) -> Experiment:
    """No window of t seconds lets in more than capacity + rate * t: the most that any window is ahead of rate * t."""

    def sample(rng: np.random.Generator, n: int) -> Sample:
        who = Customers(poisson(rng, 1.0, n), rng.integers(1, 40, n))
        trace = run([Station(Slots(depth=1 << 30))], who, admission=TokenBucket(rate, capacity))
        jobs = trace.jobs()
        order = np.argsort(jobs[:, 2], kind="stable")
        entered, sizes = jobs[order, 2], who.sizes[order]
        after = np.cumsum(sizes) - rate * entered
        before = after - sizes
        return Sample({"ahead": float((after - np.minimum.accumulate(before)).max())})

    name = "token bucket: tokens in any window beyond its rate"
    claim = Claim("ahead", name, capacity, "token bucket", BOUND, "tokens", absolute=1e-6)
    return Experiment("token bucket", sample, (claim,), 5_000, replications=1, quick=True)

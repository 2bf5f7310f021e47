"""Servers that must wake up, that die, and tries that fail."""

from __future__ import annotations

from collections.abc import Callable
from math import exp
from typing import Any

import numpy as np

from airi_sim.core.order import COMPLETION
from airi_sim.core.protocols import View
from airi_sim.core.types import Affine, Job, Outcome, Plan, Verdict
from airi_sim.engine.driver import Driver
from airi_sim.engine.executors import ServiceExecutor
from airi_sim.hardware.service import ServiceCost
from airi_sim.policies.faults import Retry
from airi_sim.workbench.theory import forms
from airi_sim.workbench.theory.families.lockstep import lengths
from airi_sim.workbench.theory.families.one_server import customers, deviations, kept
from airi_sim.workbench.theory.rig import (
    TICK,
    Customers,
    PassCost,
    Slots,
    Station,
    Tokens,
    generate,
    poisson,
    run,
    ticks,
)
from airi_sim.workbench.theory.rows import ASYMPTOTIC, Claim, Experiment, Sample
from airi_sim.workbench.theory.sizes import exponential


def experiments() -> list[Experiment]:
    """Set-up, keep-alive, breakdowns, retries."""
    return [
        _set_up("exponential set-up of 10 s", 0.8, 10.0, 200.0, lambda rng: rng.exponential(10.0), 20_000),
        _set_up("constant set-up of 30 s", 0.05, 30.0, 900.0, lambda _: 30.0, 10_000, quick=True),
        _keep_alive(0.1, 10.0),
        _breakdowns(0.05, 2.0, 0.5),
        _retries(0.1, 3),
    ]


class Waking:
    """Cost of a server that falls asleep when nothing ran for `keep` seconds: the next job waits for a set-up too."""

    def __init__(self, set_up: Callable[[], float], keep: float = 0.0) -> None:
        self.set_up, self.keep = set_up, keep
        self.asleep_at = 0.0
        self.woken = 0

    def affine(self, plan: Plan) -> Affine:
        """See core.protocols.CostModel."""
        asleep = plan.start > self.asleep_at
        self.woken += asleep
        seconds = plan.prefill_tokens * TICK + (self.set_up() if asleep else 0.0)
        self.asleep_at = plan.start + seconds + self.keep
        return Affine(seconds)


def _set_up(
    what: str, rate: float, first: float, second: float, draw: Callable[[np.random.Generator], float], n: int,
    quick: bool = False,
) -> Experiment:  # fmt: skip
    size = exponential()

    def sample(rng: np.random.Generator, n: int) -> Sample:
        who = customers(rng, rate, size, n)
        trace = run([Station(Slots(cost=lambda: Waking(lambda: draw(rng))))], who)
        return Sample({"time": kept(trace.times).mean()}, deviations(who, rate, size))

    name = f"M/M/1 with {what}, load {rate:g}"
    claim = Claim("time", f"{name}: mean time", forms.set_up_time(rate, size, first, second), "Welch 1964")
    return Experiment(name, sample, (claim,), n, quick=quick)


def _keep_alive(rate: float, keep: float) -> Experiment:
    short = 1e-4

    def sample(rng: np.random.Generator, n: int) -> Sample:
        cost = Waking(lambda: 0.0, keep)
        who = Customers(poisson(rng, rate, n), ticks(np.full(n, short)))
        run([Station(Slots(cost=lambda: cost))], who)
        return Sample({"cold": cost.woken / n}, [float(who.arrivals[-1] * rate / n - 1)])

    name = f"kept alive {keep:g} s, {rate:g} requests/s"
    note = f"for short jobs; {short:g} s here"
    claim = Claim("cold", f"{name}: share of cold starts", exp(-rate * keep), "Poisson gaps", ASYMPTOTIC, "", note)
    return Experiment(name, sample, (claim,), 4_000, quick=True)


# -- a server that dies while it works; everybody hears when it will be back


class Repairs:
    """Failures of server 0 at a rate while it works; both policies that are asked meanwhile put jobs off until it is up
    again. Work done is kept: a model server starts again from the tokens it has streamed."""

    def __init__(self, rng: np.random.Generator, failures: float, repair: float, end: float) -> None:
        self.rng, self.repair = rng, repair
        self.times = poisson(rng, failures, int(2 * failures * end) + 100)
        self.back = 0.0

    def prepare(self, driver: Driver) -> None:
        """Put the failures on the calendar; those that find the server idle or down do not count."""
        self.driver = driver
        for at in self.times.tolist():
            driver.at(at, self._failure(at))

    def _failure(self, at: float) -> Callable[[], None]:
        def fail() -> None:
            server = self.driver.runtime.servers[0]
            if server.up and server.flights:
                self.back = at + self.rng.exponential(self.repair)
                self.driver.runtime.server_down(0, at)
                self.driver.at(self.back, lambda: self.driver.runtime.server_up(0, self.back), COMPLETION)

        return fail

    def admit(self, job: Job, view: View, now: float) -> Verdict:
        """Admission: at once, or when it is repaired."""
        return Verdict(True) if now >= self.back else Verdict(False, self.back - now, "down")

    def lost(self, job: Job, attempt: int, now: float) -> Verdict:
        """FaultPolicy: again when it is repaired."""
        return Verdict(False, self.back - now, "down")


def _breakdowns(failures: float, repair: float, load: float) -> Experiment:
    size, passes = exponential(), 1000

    def sample(rng: np.random.Generator, n: int) -> Sample:
        outputs = lengths(size, passes, rng, n)
        arrivals = poisson(rng, load, n)
        repairs = Repairs(rng, failures, repair, float(arrivals[-1]))
        who = Customers(arrivals, np.ones(n, dtype=np.int64), outputs)
        station = Station(Tokens(PassCost(1 / passes), seats=1), "generate")
        trace = run([station], who, generate, admission=repairs, faults=repairs, prepare=repairs.prepare)
        alike = Customers(arrivals, ticks(outputs / passes))
        return Sample({"time": kept(trace.times).mean()}, deviations(alike, load, size))

    name = f"M/M/1 that fails {failures:g}/s for {repair:g} s, load {load:g}"
    form = forms.breakdown_time(load, size, failures, repair)
    note = "for many passes a job: a failure costs the pass in flight, 0.5 ms on average"
    claim = Claim("time", f"{name}: mean time", form, "Gaver 1962", ASYMPTOTIC, note=note)
    return Experiment(name, sample, (claim,), 40_000)


class Flaky(ServiceExecutor):
    """A server whose every plan fails with probability `p`; it is back at once."""

    def __init__(self, rng: np.random.Generator, p: float) -> None:
        super().__init__(ServiceCost(per_token=TICK))
        self.rng, self.p = rng, p
        self.driver: Driver | None = None

    def finish(self, plan: Plan, now: float) -> Outcome:
        if self.driver is None or self.rng.random() >= self.p:
            return super().finish(plan, now)
        runtime = self.driver.runtime
        self.driver.at(now, lambda: runtime.server_up(plan.server, now))
        return Outcome(0, [], 0.0, failed="flaky")


class FlakySlots(Slots):
    """Slots with such executors."""

    def __init__(self, make: Callable[[], Flaky]) -> None:
        super().__init__()
        object.__setattr__(self, "make", make)

    def executor(self, script: Any) -> Flaky:
        return self.make()  # type: ignore[attr-defined]


def _retries(p: float, limit: int) -> Experiment:
    tries, succeeded = forms.attempts(p, limit)

    def sample(rng: np.random.Generator, n: int) -> Sample:
        made: list[Flaky] = []

        def make() -> Flaky:
            made.append(Flaky(rng, p))
            return made[-1]

        def prepare(driver: Driver) -> None:
            for one in made:
                one.driver = driver

        who = Customers(np.arange(n, dtype=float), ticks(np.full(n, 0.01)))
        trace = run([Station(FlakySlots(make), replicas=2)], who, faults=Retry(limit), prepare=prepare)
        starts = sum(1 for row in trace.log.decisions if row[4] == "start")
        return Sample({"tries": starts / n, "finished": trace.runtime.counts["finished"] / n})

    name = f"tries that fail with probability {p:g}, {limit} retries"
    claims = (
        Claim("tries", f"{name}: tries a job", tries, "geometric, cut", unit=""),
        Claim("finished", f"{name}: share that succeeds", succeeded, "geometric, cut", unit=""),
    )
    return Experiment(name, sample, claims, 4_000, quick=True)

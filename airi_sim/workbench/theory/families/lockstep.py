"""Continuous batching: passes that all running jobs share. With many passes a job it is a symmetric queue (Kelly)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from airi_sim.workbench.theory import forms
from airi_sim.workbench.theory.families.orders import in_order_of_arrival
from airi_sim.workbench.theory.rig import Customers, PassCost, Station, Tokens, Trace, generate, poisson, run, ticks
from airi_sim.workbench.theory.rows import ASYMPTOTIC, FEWEST, Claim, Experiment, Sample
from airi_sim.workbench.theory.sizes import Size, constant, exponential, hyper

BASE, EACH, PASSES = 1e-3, 1e-5, 2000
"""Seconds of a pass, of a job in it, and the mean number of passes a job needs."""
CAP = 64
MARGIN = 12
"""Times the mean number of jobs, customers that come before and after those who are counted."""


def experiments() -> list[Experiment]:
    """Processor sharing (passes without a base) and passes with one, lengths of three laws; with a cap on the batch."""
    return [
        _sharing(exponential(), 0.5),
        _sharing(exponential(), 0.8),
        _sharing(hyper(4), 0.5),
        *[_passes(size, 20.0, quick=size.name == "D") for size in (exponential(), constant(), hyper(4))],
        _passes(constant(), 40.0),
        *[_capped(load) for load in (0.3, 0.8)],
    ]


def lengths(size: Size, mean: float, rng: np.random.Generator, n: int) -> np.ndarray:
    """Output tokens of that law, at least one."""
    return np.maximum(1, np.rint(size.draw(rng, n) * mean)).astype(np.int64)


@dataclass(frozen=True)
class Steady:
    """The middle of a run: customers who came when the queue had long been as full as it gets, and long before it began
    to drain. `times` and `outputs` are theirs."""

    trace: Trace
    margin: int

    @property
    def times(self) -> np.ndarray:
        return self.middle(self.trace.times)

    def middle(self, values: np.ndarray) -> np.ndarray:
        """Without those of the margins."""
        return values[self.margin : -self.margin]

    def occupancy(self, upto: int) -> np.ndarray:
        """The share of time in which 0, 1, ..., upto jobs run, from the plans; who comes or goes within a plan is not
        seen."""
        start, end, running = (np.array([row[c] for row in self.trace.log.plans], dtype=float) for c in (2, 3, 5))
        arrived = self.middle(self.trace.arrived)
        first, last = float(arrived[0]), float(arrived[-1])
        spans = np.maximum(0.0, np.minimum(end, last) - np.maximum(start, first))
        law = np.bincount(np.minimum(running, upto + 1).astype(int), spans, upto + 2)
        law[0] += last - first - spans.sum()
        return law[: upto + 1] / (last - first)


def run_passes(
    kind: Tokens, rate: float, size: Size, present: float, rng: np.random.Generator, n: int
) -> tuple[Steady, list[float], np.ndarray]:
    """Poisson arrivals of prompts of one token, n of them between margins of many times the `present` mean number of
    jobs; with the controls, and the lengths of those n."""
    margin = round(MARGIN * present * max(1.0, size.scv)) + FEWEST
    outputs = lengths(size, PASSES, rng, n + 2 * margin)
    who = Customers(poisson(rng, rate, len(outputs)), np.ones(len(outputs), dtype=np.int64), outputs)
    steady = Steady(run([Station(kind, "generate")], who, generate), margin)
    gaps = steady.middle(np.diff(who.arrivals, prepend=0.0)).mean() * rate - 1
    needed = steady.middle(outputs)
    return steady, [float(gaps), float(needed.mean() / PASSES - 1)], needed


def _sharing(size: Size, load: float, quick: bool = False) -> Experiment:
    """A pass of n jobs takes n * EACH: the server works at one speed and shares it."""
    rate = load / (PASSES * EACH)
    name = f"M/{size.name}/1 shared by passes, load {load:g}"
    unit = PASSES * EACH
    scaled = replace(size, mean=unit, second=size.second * unit**2)
    half = EACH / (1 - load) / 2
    form = forms.ps_time(rate, PASSES * EACH) + half

    def sample(rng: np.random.Generator, n: int) -> Sample:
        kind = Tokens(PassCost(0.0, EACH))
        steady, controls, outputs = run_passes(kind, rate, size, load / (1 - load), rng, n)
        alike = Customers(steady.middle(steady.trace.arrived), ticks(outputs * EACH))
        controls.append(in_order_of_arrival(alike, rate, scaled))
        times, long = steady.times, outputs > PASSES
        slow = times[long].mean() / (outputs[long].mean() * EACH)
        return Sample({"time": times.mean(), "slow": slow}, controls)

    note = f"for many passes; {half:.2g} s added for half a pass of waiting"
    claims = (
        Claim("time", f"{name}: mean time", form, "Sakata et al. 1971", ASYMPTOTIC, note=note),
        Claim("slow", f"{name}: slowdown of long jobs", 1 / (1 - load), "Sakata et al. 1971", ASYMPTOTIC, "", note),
    )
    return Experiment(name, sample, claims, 12_000, quick=quick)


def _passes(size: Size, rate: float, quick: bool = False) -> Experiment:
    load = rate * PASSES * EACH
    present = (1 + BASE / EACH) * load / (1 - load)
    half = (BASE + EACH * present) / 2
    upto = round(2 * present)
    law = forms.lockstep_law(rate, PASSES, BASE, EACH, upto)
    name = f"passes of {BASE * 1e3:g} + {EACH * 1e3:g} n ms, {size.name} lengths, {rate:g} requests/s"

    def sample(rng: np.random.Generator, n: int) -> Sample:
        steady, controls, _ = run_passes(Tokens(PassCost(BASE, EACH)), rate, size, present, rng, n)
        found = steady.occupancy(upto)
        crowded = 1 - found[: round(present) + 1].sum()
        spread = float(np.arange(upto + 1) @ found)
        return Sample({"time": steady.times.mean(), "crowded": crowded, "number": spread}, controls)

    note = f"for many passes; {half:.2g} s added for half a pass of waiting"
    form = forms.lockstep_time(rate, PASSES, BASE, EACH) + half
    above, part = 1 - float(law[: round(present) + 1].sum()), float(np.arange(upto + 1) @ law)
    claims = [
        Claim("time", f"{name}: mean time", form, "symmetric queue", ASYMPTOTIC, note=note),
        Claim("number", f"{name}: E[N; N <= {upto}]", part, "negative binomial", ASYMPTOTIC, "jobs", "for many passes"),
    ]
    if size.scv <= 1 and load <= 0.5:  # else no run of reasonable length would tell
        what = f"{name}: P(N > {round(present)})"
        claims.append(Claim("crowded", what, above, "negative binomial", ASYMPTOTIC, "", "for many passes"))
    return Experiment(name, sample, tuple(claims), 12_000, quick=quick)


def _capped(load: float) -> Experiment:
    rate = load * CAP / (PASSES * (BASE + EACH * CAP))
    time, running = forms.capped_lockstep(rate, PASSES, BASE, EACH, CAP)
    name = f"passes of {BASE * 1e3:g} + {EACH * 1e3:g} n ms, at most {CAP}, load {load:g}"

    def sample(rng: np.random.Generator, n: int) -> Sample:
        kind = Tokens(PassCost(BASE, EACH), seats=CAP)
        steady, controls, _ = run_passes(kind, rate, exponential(), rate * time, rng, n)
        found = steady.occupancy(CAP)
        return Sample({"time": steady.times.mean(), "running": float(np.arange(CAP + 1) @ found)}, controls)

    half = (BASE + EACH * running) / 2
    note = f"for many passes; {half:.2g} s added for half a pass of waiting"
    claims = (
        Claim("time", f"{name}: mean time", time + half, "birth and death", ASYMPTOTIC, note=note),
        Claim("running", f"{name}: mean running", running, "birth and death", ASYMPTOTIC, "jobs", "for many passes"),
    )
    return Experiment(name, sample, claims, 12_000)

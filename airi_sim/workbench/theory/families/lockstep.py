"""Continuous batching: passes that all running jobs share. With many passes a job it is a symmetric queue (Kelly)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from airi_sim.workbench.theory import forms
from airi_sim.workbench.theory.families.one_server import kept
from airi_sim.workbench.theory.families.orders import in_order_of_arrival
from airi_sim.workbench.theory.rig import Customers, PassCost, Station, Tokens, Trace, generate, poisson, run, ticks
from airi_sim.workbench.theory.rows import ASYMPTOTIC, Claim, Experiment, Sample
from airi_sim.workbench.theory.sizes import Size, constant, exponential, hyper

BASE, EACH, PASSES = 1e-3, 1e-5, 2000
"""Seconds of a pass, of a job in it, and the mean number of passes a job needs."""
CAP = 64


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


def run_passes(
    kind: Tokens, rate: float, size: Size, rng: np.random.Generator, n: int
) -> tuple[Trace, list[float], np.ndarray]:
    """Poisson arrivals of prompts of one token; the trace, the controls, and the lengths."""
    outputs = lengths(size, PASSES, rng, n)
    who = Customers(poisson(rng, rate, n), np.ones(n, dtype=np.int64), outputs)
    trace = run([Station(kind, "generate")], who, generate)
    gaps = float(kept(np.diff(who.arrivals, prepend=0.0)).mean() * rate - 1)
    return trace, [gaps, float(kept(outputs).mean() / PASSES - 1)], outputs


def occupancy(trace: Trace, upto: int) -> np.ndarray:
    """The share of time in which 0, 1, ..., upto jobs run, from the plans; who comes or goes within one is not seen."""
    start, end, running = (np.array([row[c] for row in trace.log.plans], dtype=float) for c in (2, 3, 5))
    last = float(trace.arrived[-1])  # what follows is a drain
    first = last / 10
    spans = np.maximum(0.0, np.minimum(end, last) - np.maximum(start, first))
    law = np.bincount(np.minimum(running, upto + 1).astype(int), spans, upto + 2)
    law[0] += last - first - spans.sum()
    return law[: upto + 1] / (last - first)


def _sharing(size: Size, load: float, quick: bool = False) -> Experiment:
    """A pass of n jobs takes n * EACH: the server works at one speed and shares it."""
    rate = load / (PASSES * EACH)
    name = f"M/{size.name}/1 shared by passes, load {load:g}"
    unit = PASSES * EACH
    scaled = replace(size, mean=unit, second=size.second * unit**2)
    half = EACH / (1 - load) / 2
    form = forms.ps_time(rate, PASSES * EACH) + half

    def sample(rng: np.random.Generator, n: int) -> Sample:
        trace, controls, outputs = run_passes(Tokens(PassCost(0.0, EACH)), rate, size, rng, n)
        alike = Customers(trace.arrived, ticks(outputs * EACH))
        controls.append(in_order_of_arrival(alike, rate, scaled))
        times, long = kept(trace.times), kept(outputs) > PASSES
        slow = times[long].mean() / (kept(outputs)[long].mean() * EACH)
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
        trace, controls, _ = run_passes(Tokens(PassCost(BASE, EACH)), rate, size, rng, n)
        found = occupancy(trace, upto)
        crowded = 1 - found[: round(present) + 1].sum()
        spread = float(np.arange(upto + 1) @ found)
        return Sample({"time": kept(trace.times).mean(), "crowded": crowded, "number": spread}, controls)

    note = f"for many passes; {half:.2g} s added for half a pass of waiting"
    form = forms.lockstep_time(rate, PASSES, BASE, EACH) + half
    above, part = 1 - float(law[: round(present) + 1].sum()), float(np.arange(upto + 1) @ law)
    claims = (
        Claim("time", f"{name}: mean time", form, "symmetric queue", ASYMPTOTIC, note=note),
        Claim("number", f"{name}: E[N; N <= {upto}]", part, "negative binomial", ASYMPTOTIC, "jobs", "for many passes"),
        Claim(
            "crowded", f"{name}: P(N > {round(present)})", above, "negative binomial", ASYMPTOTIC, "", "for many passes"
        ),
    )
    return Experiment(name, sample, claims, 12_000, quick=quick)


def _capped(load: float) -> Experiment:
    rate = load * CAP / (PASSES * (BASE + EACH * CAP))
    time, running = forms.capped_lockstep(rate, PASSES, BASE, EACH, CAP)
    name = f"passes of {BASE * 1e3:g} + {EACH * 1e3:g} n ms, at most {CAP}, load {load:g}"

    def sample(rng: np.random.Generator, n: int) -> Sample:
        trace, controls, _ = run_passes(Tokens(PassCost(BASE, EACH), seats=CAP), rate, exponential(), rng, n)
        found = occupancy(trace, CAP)
        return Sample({"time": kept(trace.times).mean(), "running": float(np.arange(CAP + 1) @ found)}, controls)

    half = (BASE + EACH * running) / 2
    note = f"for many passes; {half:.2g} s added for half a pass of waiting"
    claims = (
        Claim("time", f"{name}: mean time", time + half, "birth and death", ASYMPTOTIC, note=note),
        Claim("running", f"{name}: mean running", running, "birth and death", ASYMPTOTIC, "jobs", "for many passes"),
    )
    return Experiment(name, sample, claims, 12_000)

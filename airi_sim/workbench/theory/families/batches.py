"""Batches: a server that takes all who wait, or at most so many (Inoue 2021, Bailey 1954)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from airi_sim.hardware.service import ServiceCost
from airi_sim.policies.batchers import GreedyAll, Static
from airi_sim.workbench.theory import forms
from airi_sim.workbench.theory.families.one_server import kept
from airi_sim.workbench.theory.rig import Batches, Customers, Station, poisson, run
from airi_sim.workbench.theory.rows import BOUND, Claim, Experiment, Sample

BASE = 2.0
"""Seconds of a batch beside those of its jobs."""


def experiments() -> list[Experiment]:
    """Dynamic batching at five loads, with its bound; batches of at most 4, 8, 32."""
    return [
        *[_dynamic(1.0, load, quick=load == 0.5) for load in (0.1, 0.3, 0.5, 0.7, 0.9)],
        _dynamic(0.1, 0.5),
        *[_capped(cap, load, quick=(cap, load) == (4, 0.8)) for cap in (4, 8, 32) for load in (0.5, 0.8, 0.9)],
    ]


def _sample(rate: float, kind: Batches) -> Callable[[np.random.Generator, int], Sample]:
    def sample(rng: np.random.Generator, n: int) -> Sample:
        who = Customers(poisson(rng, rate, n), np.ones(n, dtype=np.int64))
        trace = run([Station(kind)], who)
        gaps = float(kept(np.diff(who.arrivals, prepend=0.0)).mean() * rate - 1)
        sizes = np.array([row[6] for row in trace.log.plans])
        return Sample({"time": kept(trace.times).mean(), "size": sizes[len(sizes) // 10 :].mean()}, [gaps])

    return sample


def _dynamic(each: float, load: float, quick: bool = False) -> Experiment:
    rate = load / each
    kind = Batches(lambda: ServiceCost(constant=BASE, per_item=each), batcher=GreedyAll)
    name = f"dynamic batching, {BASE:g} + {each:g} b s, load {load:g}"
    exact = forms.batch_time(rate, lambda b: BASE + each * b, cap=1 << 30, most=_states(load, rate))
    bound = forms.batch_bound(rate, each, BASE)
    claims = (
        Claim("time", f"{name}: mean time", exact, "Inoue 2021, chain of batches"),
        Claim("time", f"{name}: below phi_1", bound, "Inoue 2021", BOUND),
    )
    return Experiment(name, _sample(rate, kind), claims, 20_000 if load < 0.8 else 40_000, quick=quick)


def _states(load: float, rate: float) -> int:
    """How many states of the chain count: some forty times the typical batch."""
    return int(200 + 15 * rate * BASE / (1 - load))


def _capped(cap: int, load: float, quick: bool = False) -> Experiment:
    rate = load * cap
    kind = Batches(lambda: ServiceCost(constant=1.0), batcher=lambda: Static(cap))
    name = f"batches of at most {cap}, load {load:g}"
    form = forms.batch_time(rate, lambda _: 1.0, cap, most=400)
    claim = Claim("time", f"{name}: mean time", form, "Bailey 1954, M/D[1..b]/1")
    return Experiment(name, _sample(rate, kind), (claim,), 12_000, quick=quick)

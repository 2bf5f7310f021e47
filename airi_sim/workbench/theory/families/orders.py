"""One server, other orders: shortest first, priorities, and what no order can change (Kleinrock's conservation law)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from airi_sim.policies.queues import Fcfs, PriorityAging, Sjf, Vtc
from airi_sim.workbench.theory import forms
from airi_sim.workbench.theory.families.one_server import customers, deviations, kept, starts
from airi_sim.workbench.theory.rig import TICK, Customers, Slots, Station, poisson, run, ticks
from airi_sim.workbench.theory.rows import Claim, Experiment, Sample
from airi_sim.workbench.theory.sizes import Size, exponential, hyper

RATES = (0.2, 0.3, 0.3)
"""Arrivals of the three classes, most urgent first; all need one second."""
UNLIKE = ((0.3, 0.5), (0.2, 2.0))
"""(rate, mean service) of two classes that the conservation law is tried on."""
PATIENT = 1e12
"""Nobody grows impatient: priorities are absolute."""
Order = Callable[[], Any]


def experiments() -> list[Experiment]:
    """Shortest job first, three priorities, and the same load-weighted wait under four orders."""
    return [
        _sjf(exponential(), 0.8, 20_000, quick=True),
        _sjf(hyper(4), 0.8, 40_000),
        _priorities(25_000),
        *[_conservation(order, quick=order is Vtc) for order in (Fcfs, _by_priority, Vtc)],
    ]


def _by_priority() -> PriorityAging:
    return PriorityAging(PATIENT)


def in_order_of_arrival(who: Customers, rate: float, size: Size) -> float:
    """By how much the wait of these customers, were they served in order of arrival, is off its mean."""
    wait = kept(starts(who.arrivals, who.sizes * TICK) - who.arrivals).mean()
    return float(wait - forms.mg1_wait(rate, size))


def _sjf(size: Size, load: float, n: int, quick: bool = False) -> Experiment:
    def sample(rng: np.random.Generator, n: int) -> Sample:
        who = customers(rng, load, size, n)
        trace = run([Station(Slots(queue=Sjf))], who)
        controls = [*deviations(who, load, size), in_order_of_arrival(who, load, size)]
        return Sample({"time": kept(trace.times).mean()}, controls)

    name = f"SJF, M/{size.name}/1, load {load:g}"
    claim = Claim("time", f"{name}: mean time", forms.sjf_time(load, size), "Phipps 1956")
    return Experiment(name, sample, (claim,), n, quick=quick)


def _priorities(n: int) -> Experiment:
    size, rate = exponential(), sum(RATES)

    def sample(rng: np.random.Generator, n: int) -> Sample:
        classes = rng.choice(len(RATES), n, p=np.array(RATES) / rate)
        who = Customers(poisson(rng, rate, n), ticks(size.draw(rng, n)), priorities=classes)
        trace = run([Station(Slots(queue=_by_priority))], who)
        waits = {f"W{k}": kept(trace.waits)[kept(classes) == k].mean() for k in range(len(RATES))}
        return Sample(waits, [*deviations(who, rate, size), in_order_of_arrival(who, rate, size)])

    waits = forms.priority_waits(RATES, [size.second] * 3, [size.mean] * 3)
    claims = [Claim(f"W{k}", f"priority {k + 1} of 3: mean wait", wait, "Cobham 1954") for k, wait in enumerate(waits)]
    return Experiment("priorities, not preemptive", sample, tuple(claims), n)


def _conservation(order: Order, quick: bool) -> Experiment:
    rates, means = zip(*UNLIKE, strict=True)
    total = sum(rates)
    seconds = [2 * mean**2 for mean in means]

    def sample(rng: np.random.Generator, n: int) -> Sample:
        classes = rng.choice(2, n, p=np.array(rates) / total)
        services = rng.exponential(np.array(means)[classes])
        tenants = [f"class {k}" for k in classes]
        who = Customers(poisson(rng, total, n), ticks(services), tenants=tenants, priorities=classes)
        waits = kept(run([Station(Slots(queue=order))], who).waits)
        weighted = sum([rate * mean * waits[kept(classes) == k].mean() for k, (rate, mean) in enumerate(UNLIKE)])
        return Sample({"weighted": weighted}, _unlike_controls(who, classes))

    form = forms.conserved(rates, seconds, means)
    name = order.__name__ if order is not _by_priority else "PriorityAging"
    claim = Claim("weighted", f"sum of load x wait over two classes, {name}", form, "Kleinrock 1965")
    return Experiment(f"conservation under {name}", sample, (claim,), 20_000, quick=quick)


def _unlike_controls(who: Customers, classes: np.ndarray) -> list[float]:
    """Gaps, sizes and squared sizes of each class, and the wait in order of arrival."""
    rates, means = zip(*UNLIKE, strict=True)
    second = float(np.dot(rates, [2 * mean**2 for mean in means])) / sum(rates)
    size = Size("mixed", float(np.dot(rates, means)) / sum(rates), second, *[_unused] * 3)
    share = float(kept(classes).mean() - rates[1] / sum(rates))
    return [*deviations(who, sum(rates), size), share, in_order_of_arrival(who, sum(rates), size)]


def _unused(*_: Any) -> Any:
    raise NotImplementedError("only the moments of this mixture are needed")

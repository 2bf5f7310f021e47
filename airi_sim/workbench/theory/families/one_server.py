"""One server in order of arrival: Pollaczek-Khinchine, quantiles, groups that arrive together."""

from __future__ import annotations

from heapq import heapify, heapreplace

import numpy as np

from airi_sim.workbench.theory import forms
from airi_sim.workbench.theory.rig import TICK, Customers, Slots, Station, Trace, poisson, run, ticks
from airi_sim.workbench.theory.rows import Claim, Experiment, Sample
from airi_sim.workbench.theory.sizes import Size, constant, erlang, exponential, hyper

WARM = 0.1
"""Of the customers come before anything is counted: the servers start empty."""
PATH_S = 1e-6
"""How far the engine may be from a recursion over the same customers: rounding of sums."""


def experiments() -> list[Experiment]:
    """M/M/1, M/D/1, M/E4/1, M/H2/1 at several loads; the distribution of M/M/1 and M/D/1; M^[4]/M/1."""
    return [
        _mg1(exponential(), 0.5, 15_000, quick=True),
        _mg1(erlang(4), 0.5, 15_000),
        _mg1(hyper(4), 0.5, 20_000),
        _mg1(exponential(), 0.8, 30_000),
        _mg1(constant(), 0.8, 20_000, quick=True),
        _mg1(hyper(4), 0.8, 40_000),
        _mg1(constant(), 0.9, 20_000),
        _groups(0.5, 4, 20_000),
    ]


def kept(values: np.ndarray) -> np.ndarray:
    """Without the first customers."""
    return values[int(WARM * len(values)) :]


def customers(rng: np.random.Generator, rate: float, size: Size, n: int) -> Customers:
    """Poisson arrivals with sizes of their own."""
    return Customers(poisson(rng, rate, n), ticks(size.draw(rng, n)))


def deviations(who: Customers, rate: float, size: Size) -> list[float]:
    """What the counted customers differ from the average by: gaps, sizes, squared sizes."""
    gaps, services = kept(np.diff(who.arrivals, prepend=0.0)), kept(who.sizes) * TICK
    squares = float((services**2).mean() - size.second)
    return [float(gaps.mean() * rate - 1), float(services.mean() - size.mean), squares]


def starts(arrivals: np.ndarray, services: np.ndarray, servers: int = 1) -> np.ndarray:
    """When each is started in order of arrival on the server that is free first: a recursion without events (Lindley
    1952; Kiefer & Wolfowitz 1955)."""
    free = [0.0] * servers
    heapify(free)
    begun = []
    for at, service in zip(arrivals.tolist(), services.tolist(), strict=True):
        start = max(at, free[0])
        heapreplace(free, start + service)
        begun.append(start)
    return np.array(begun)


def path_error(trace: Trace, who: Customers, servers: int = 1) -> float:
    """The largest difference between the engine's starts and the recursion's, in seconds."""
    return float(np.abs(trace.jobs()[:, 2] - starts(who.arrivals, who.sizes * TICK, servers)).max())


def same_path(what: str, source: str, figure: str = "path") -> Claim:
    """The claim that a recursion over the same customers gives the same times."""
    return Claim(figure, what, 0.0, source, note="largest difference over all customers", absolute=PATH_S)


def _mg1(size: Size, load: float, n: int, quick: bool = False) -> Experiment:
    def sample(rng: np.random.Generator, n: int) -> Sample:
        who = customers(rng, load, size, n)
        trace = run([Station(Slots())], who)
        times, waits = kept(trace.times), kept(trace.waits)
        figures = {"wait": waits.mean(), "idle": (waits == 0).mean(), "path": path_error(trace, who)}
        for p in (0.5, 0.9):
            figures[f"p{p}"] = np.quantile(times, p)
        for t in (1, 2, 5):
            figures[f"W{t}"] = (waits <= t + TICK / 2).mean()
        return Sample(figures, deviations(who, load, size))

    name = f"M/{size.name}/1, load {load:g}"
    claims = [
        Claim("wait", f"{name}: mean wait", forms.mg1_wait(load, size), "Pollaczek-Khinchine"),
        Claim("idle", f"{name}: share that does not wait", 1 - load, "PASTA", unit=""),
        same_path(f"{name}: starts, customer by customer", "Lindley 1952"),
    ]
    if size.name == "M":
        forms_of = {p: forms.mm1_time_quantile(load, p) for p in (0.5, 0.9)}
        claims += [Claim(f"p{p}", f"{name}: time p{100 * p:g}", form, "M/M/1") for p, form in forms_of.items()]
    if size.name == "D" and load == 0.8:
        cdf = {t: forms.md1_wait_cdf(load, t) for t in (1, 2, 5)}
        claims += [Claim(f"W{t}", f"{name}: P(wait <= {t})", form, "Erlang 1909", unit="") for t, form in cdf.items()]
    return Experiment(name, sample, tuple(claims), n, quick=quick)


def _groups(load: float, k: int, n: int) -> Experiment:
    size = exponential()

    def sample(rng: np.random.Generator, n: int) -> Sample:
        arrivals = np.repeat(poisson(rng, load / k, n // k), k)
        who = Customers(arrivals, ticks(size.draw(rng, len(arrivals))))
        trace = run([Station(Slots())], who)
        return Sample({"wait": kept(trace.waits).mean(), "path": path_error(trace, who)}, deviations(who, load, size))

    name = f"M^[{k}]/M/1, load {load:g}"
    form = forms.batch_arrivals_wait(load, k)
    claims = (Claim("wait", f"{name}: mean wait", form, "batch arrivals"), same_path(f"{name}: starts", "Lindley 1952"))
    return Experiment(name, sample, claims, n)

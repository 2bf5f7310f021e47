"""Programs of several calls: fork and join, stations in a row, closed loops, pipelines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from airi_sim.core.types import Call, Program, Request
from airi_sim.hardware.service import ServiceCost
from airi_sim.policies.routers import Random
from airi_sim.workbench.theory import forms
from airi_sim.workbench.theory.families.one_server import kept
from airi_sim.workbench.theory.rig import PLENTY, TICK, Customers, Slots, Station, poisson, run, ticks
from airi_sim.workbench.theory.rows import Claim, Experiment, Sample

Needs = np.ndarray
"""Seconds of every customer (rows) at every station (columns)."""


def experiments() -> list[Experiment]:
    """Scatter and gather, tandem queues, interactive users, and the algebra of pipelines, tensors and replicas."""
    return [
        _fork_join(0.5, quick=True),
        _fork_join(0.8),
        _shards(4, quick=True),
        _shards(16),
        _tandem(0.8, (1.0, 2.0)),
        _tandem(0.5, (1.0, 1.0, 1.0), quick=True),
        *[_closed(users, (1.0,), quick=users == 10) for users in (5, 10, 20)],
        _closed(5, (1.0, 0.5)),
        _closed(20, (1.0, 0.5)),
        *[experiment for rate in (0.5, 1.6) for experiment in _parallelism(rate)],
        _bubble(4, 8),
    ]


def stages(needs: Needs) -> Callable[[Request], Program]:
    """One call after the other; call k goes to station k."""
    sizes = ticks(needs).tolist()

    def program(request: Request) -> Program:
        for k, tokens in enumerate(sizes[request.id]):
            yield Call(f"stage {k}", tokens)

    return program


def branches(needs: Needs, kind: str = "stage {}") -> Callable[[Request], Program]:
    """All calls at once; the request is over with the last."""
    sizes = ticks(needs).tolist()

    def program(request: Request) -> Program:
        yield [Call(kind.format(k), tokens) for k, tokens in enumerate(sizes[request.id])]

    return program


def stations(n: int, **kind: Any) -> list[Station]:
    """Stations 0, 1, ... of one server each."""
    return [Station(Slots(**kind), f"stage {k}") for k in range(n)]


def _comers(rng: np.random.Generator, rate: float, n: int) -> Customers:
    return Customers(poisson(rng, rate, n), np.ones(n, dtype=np.int64))


def _deviations(who: Customers, rate: float, needs: Needs, means: Sequence[float]) -> list[float]:
    gaps = kept(np.diff(who.arrivals, prepend=0.0)).mean() * rate - 1
    return [float(gaps), *(kept(needs).mean(axis=0) - np.array(means)).tolist()]


def _network(
    rate: float, means: Sequence[float], program: Callable[[Needs], Callable[[Request], Program]], **kind: Any
) -> Callable[[np.random.Generator, int], Sample]:
    """Poisson arrivals, exponential needs of these means, a station for each."""

    def sample(rng: np.random.Generator, n: int) -> Sample:
        who, needs = _comers(rng, rate, n), rng.exponential(means, (n, len(means)))
        trace = run(stations(len(means), **kind), who, program(needs))
        return Sample({"time": kept(trace.times).mean()}, _deviations(who, rate, needs, means))

    return sample


def _fork_join(load: float, quick: bool = False) -> Experiment:
    name = f"fork over 2 and join, load {load:g}"
    claim = Claim("time", f"{name}: mean time", forms.fork_join_time(load), "Flatto & Hahn 1984")
    return Experiment(name, _network(load, (1.0, 1.0), branches), (claim,), 12_000, quick=quick)


def _shards(n: int, quick: bool = False) -> Experiment:
    name = f"scatter over {n} shards, no queue"
    claim = Claim("time", f"{name}: mean time", forms.harmonic(n), "longest of n exponentials")
    return Experiment(name, _network(0.1, (1.0,) * n, branches, depth=PLENTY), (claim,), 1_000, quick=quick)


def _tandem(rate: float, speeds: tuple[float, ...], quick: bool = False) -> Experiment:
    name = f"{len(speeds)} stations in a row, arrivals {rate:g}"
    claim = Claim("time", f"{name}: mean time", forms.tandem_time(rate, speeds), "Jackson 1957")
    return Experiment(name, _network(rate, [1 / s for s in speeds], stages), (claim,), 15_000, quick=quick)


# -- closed loops: as many requests in flight as there are users, each thinks first


def _closed(users: int, demands: tuple[float, ...], think: float = 10.0, quick: bool = False) -> Experiment:
    means = (think, *demands)
    throughput, response = forms.mva(users, think, demands)

    def sample(rng: np.random.Generator, n: int) -> Sample:
        needs = rng.exponential(means, (n, len(means)))
        who = Customers(np.zeros(n), np.ones(n, dtype=np.int64))
        places = [Station(Slots(depth=PLENTY), "stage 0"), *stations(len(means))[1:]]
        trace = run(places, who, stages(needs), concurrency=users)
        steady = slice(n // 10, n - users)
        ends = np.sort(trace.request(7))[steady]
        rate = (len(ends) - 1) / (ends[-1] - ends[0])
        stays = trace.times[steady] - ticks(needs)[steady, 0] * TICK
        off = (needs[steady].mean(axis=0) - np.array(means)).tolist()
        return Sample({"rate": rate, "response": stays.mean()}, off)

    name = f"{users} users, think {think:g} s, {len(demands)} stations"
    claims = (
        Claim("rate", f"{name}: throughput", throughput, "mean value analysis", unit="1/s"),
        Claim("response", f"{name}: response", response, "mean value analysis"),
    )
    return Experiment(name, sample, claims, 5_000, quick=quick)


# -- parallelism: two devices, requests of one second each


def _parallelism(rate: float) -> list[Experiment]:
    layouts = [
        ("two pipeline stages", forms.two_stages(rate, 1.0), "DistServe", _fixed(rate, 2, 0.5)),
        ("tensor parallel, 1.9 times", forms.tensor_parallel(rate, 1.0, 1.9), "DistServe", _fixed(rate, 1, 1 / 1.9)),
        ("two replicas, random", forms.one_device(rate / 2, 1.0), "AlpaServe", _replicas(rate)),
    ]
    if rate < 1:
        layouts.append(("one device", forms.one_device(rate, 1.0), "M/D/1", _fixed(rate, 1, 1.0)))
    return [_layout(what, rate, form, source, sample) for what, form, source, sample in layouts]


def _layout(what: str, rate: float, form: float, source: str, sample: Any) -> Experiment:
    name = f"{what}, {rate:g} requests/s"
    return Experiment(name, sample, (Claim("time", f"{name}: mean time", form, source),), 12_000)


def _fixed(rate: float, count: int, seconds: float) -> Callable[[np.random.Generator, int], Sample]:
    """`count` stages in a row, each as long."""

    def sample(rng: np.random.Generator, n: int) -> Sample:
        who = _comers(rng, rate, n)
        trace = run(stations(count, cost=lambda: ServiceCost(constant=seconds)), who, stages(np.ones((n, count))))
        return Sample({"time": kept(trace.times).mean()}, _deviations(who, rate, np.ones((n, 1)), [1.0]))

    return sample


def _replicas(rate: float) -> Callable[[np.random.Generator, int], Sample]:
    def sample(rng: np.random.Generator, n: int) -> Sample:
        who, seed = _comers(rng, rate, n), int(rng.integers(1 << 31))
        kind = Slots(cost=lambda: ServiceCost(constant=1.0))
        trace = run([Station(kind, replicas=2, router=lambda: Random(seed))], who)
        return Sample({"time": kept(trace.times).mean()}, _deviations(who, rate, np.ones((n, 1)), [1.0]))

    return sample


def _bubble(count: int, microbatches: int) -> Experiment:
    def sample(_: np.random.Generator, __: int) -> Sample:
        who = Customers(np.zeros(microbatches), np.ones(microbatches, dtype=np.int64))
        trace = run(
            stations(count, cost=lambda: ServiceCost(constant=1.0)), who, stages(np.ones((microbatches, count)))
        )
        return Sample({"idle": 1 - microbatches / trace.end_s})

    name = f"{microbatches} microbatches through {count} stages"
    claim = Claim(
        "idle", f"{name}: bubble", forms.bubble(count, microbatches), "Huang et al. 2019", unit="", absolute=1e-9
    )
    return Experiment(name, sample, (claim,), replications=1, quick=True)

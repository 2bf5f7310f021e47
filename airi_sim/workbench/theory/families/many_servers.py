"""Several servers: one line for all, lines of their own behind a router, no line at all, customers who leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from airi_sim.engine.driver import Driver
from airi_sim.policies.admission import ConcurrencyLimit
from airi_sim.policies.routers import Jsq, PowerOfTwo, Random, RoundRobin
from airi_sim.workbench.theory import forms
from airi_sim.workbench.theory.families.one_server import customers, deviations, kept, path_error, same_path
from airi_sim.workbench.theory.rig import Slots, Station, run
from airi_sim.workbench.theory.rows import ASYMPTOTIC, BOUND, Claim, Experiment, Sample
from airi_sim.workbench.theory.sizes import Size, constant, exponential, hyper


def experiments() -> list[Experiment]:
    """Erlang B and C, M/D/c, M/G/c; random, round robin, shortest queue, some of many choices."""
    return [
        _central(2, exponential(), 1.0, 20_000, quick=True),
        _central(2, exponential(), 1.6, 20_000),
        _central(8, exponential(), 6.4, 30_000),
        _central(2, constant(), 1.6, 20_000),
        _central(2, hyper(4), 1.6, 60_000),
        *[_loss(8, 6.4, size, quick=size.name == "D") for size in (exponential(), constant(), hyper(4))],
        _full(8, 16, 9.6),
        _full(1, 10, 0.9),
        _impatient(8, 9.0, 2.0),
        _random(4, 0.5, quick=True),
        _round_robin(2, 0.8),
        _round_robin(8, 0.8),
        _shortest_of_two(0.5, quick=True),
        _shortest_of_two(0.8),
        _choices(100, 0.9, 2),
        _choices(50, 0.5, 2),
        _choices(50, 0.8, 3),
        _shortest(10, 0.9),
    ]


# -- one line


def _central(servers: int, size: Size, offered: float, n: int, quick: bool = False) -> Experiment:
    def sample(rng: np.random.Generator, n: int) -> Sample:
        who = customers(rng, offered, size, n)
        trace = run([Station(Slots(depth=servers))], who)
        waits = kept(trace.waits)
        figures = {"wait": waits.mean(), "waits": (waits > 0).mean(), "path": path_error(trace, who, servers)}
        return Sample(figures, deviations(who, offered, size))

    name = f"M/{size.name}/{servers}, load {offered / servers:g}"
    claims = [same_path(f"{name}: starts", "Kiefer & Wolfowitz 1955"), *_central_claims(name, servers, size, offered)]
    return Experiment(name, sample, tuple(claims), n, quick=quick)


def _central_claims(name: str, servers: int, size: Size, offered: float) -> list[Claim]:
    wait = forms.mmc_wait(servers, offered)
    if size.name == "M":
        return [
            Claim("wait", f"{name}: mean wait", wait, "Erlang C"),
            Claim("waits", f"{name}: share that waits", forms.erlang_c(servers, offered), "Erlang C", unit=""),
        ]
    if size.name == "D":
        return [Claim("wait", f"{name}: mean wait", forms.mdc_wait(servers, offered), "Crommelin 1932")]
    form = wait * (1 + size.scv) / 2
    note = "exact for c = 1 and for load -> 1; 7 % allowed for at this load"
    source = "Lee & Longton 1959"
    return [Claim("wait", f"{name}: mean wait", form, source, ASYMPTOTIC, note=note, allowance=0.07 * form)]


# -- no line, a short one, an impatient one


def _rejected(trace: Any) -> np.ndarray:
    return np.array([row[11] == "rejected" for row in sorted(trace.log.requests)])


def _loss(servers: int, offered: float, size: Size, quick: bool) -> Experiment:
    def sample(rng: np.random.Generator, n: int) -> Sample:
        who = customers(rng, offered, size, n)
        trace = run([Station(Slots(depth=servers))], who, admission=ConcurrencyLimit(servers))
        return Sample({"lost": kept(_rejected(trace)).mean()}, deviations(who, offered, size)[:2])

    name = f"M/{size.name}/{servers}/{servers}, load {offered / servers:g}"
    claim = Claim("lost", f"{name}: share lost", forms.erlang_b(servers, offered), "Erlang B, insensitive", unit="")
    return Experiment(name, sample, (claim,), 12_000, quick=quick)


def _full(servers: int, room: int, offered: float) -> Experiment:
    size = exponential()

    def sample(rng: np.random.Generator, n: int) -> Sample:
        who = customers(rng, offered, size, n)
        trace = run([Station(Slots(depth=servers))], who, admission=ConcurrencyLimit(room))
        lost, times = kept(_rejected(trace)), kept(trace.times)
        return Sample({"lost": lost.mean(), "time": times[~lost].mean()}, deviations(who, offered, size)[:2])

    lost, time = forms.mmck(offered, servers, room)
    name = f"M/M/{servers}/{room}, offered {offered:g}"
    claims = (
        Claim("lost", f"{name}: share lost", lost, "birth and death", unit=""),
        Claim("time", f"{name}: mean time of who enters", time, "birth and death"),
    )
    return Experiment(name, sample, claims, 30_000)


def _impatient(servers: int, rate: float, patience: float) -> Experiment:
    size = exponential()
    left, wait = forms.erlang_a(rate, servers, patience)

    def sample(rng: np.random.Generator, n: int) -> Sample:
        who = customers(rng, rate, size, n)
        ends = who.arrivals + rng.exponential(patience, n)

        def prepare(driver: Driver) -> None:
            for request, end in enumerate(ends.tolist()):
                driver.at(end, _giving_up(driver, request, end))

        trace = run([Station(Slots(depth=servers))], who, prepare=prepare)
        rows = sorted(trace.log.jobs)
        gone = np.array([row[14] == "cancelled" for row in rows])
        submitted, started, over = (np.array([row[c] for row in rows], dtype=float) for c in (6, 7, 9))
        waited = np.where(gone, over, started) - submitted
        return Sample({"left": kept(gone).mean(), "wait": kept(waited).mean()}, deviations(who, rate, size)[:2])

    name = f"M/M/{servers}+M, offered {rate:g}"
    claims = (
        Claim("left", f"{name}: share that gives up", left, "Erlang A (Palm 1957)", unit=""),
        Claim("wait", f"{name}: mean wait of all", wait, "Erlang A (Palm 1957)"),
    )
    return Experiment(name, sample, claims, 15_000)


def _giving_up(driver: Driver, request: int, at: float) -> Callable[[], None]:
    """Cancel the request if nobody has begun with it."""

    def give_up() -> None:
        flow = driver.runtime.flows.get(request)
        if flow is not None and all(job.started is None for job in flow.jobs.values()):
            driver.runtime.cancel(request, at)

    return give_up


# -- a line each, a router in front


def _routed(
    servers: int, load: float, router: Callable[[np.random.Generator], Callable[[], Any]]
) -> Callable[[np.random.Generator, int], Sample]:
    size = exponential()

    def sample(rng: np.random.Generator, n: int) -> Sample:
        who = customers(rng, servers * load, size, n)
        trace = run([Station(Slots(), replicas=servers, router=router(rng))], who)
        return Sample({"time": kept(trace.times).mean()}, deviations(who, servers * load, size)[:2])

    return sample


def _seeded(make: Callable[[int], Any]) -> Callable[[np.random.Generator], Callable[[], Any]]:
    return lambda rng: lambda: make(int(rng.integers(1 << 31)))


def _random(servers: int, load: float, quick: bool = False) -> Experiment:
    name = f"random over {servers}, load {load:g}"
    claim = Claim("time", f"{name}: mean time", 1 / (1 - load), "M/M/1, split")
    return Experiment(name, _routed(servers, load, _seeded(Random)), (claim,), 15_000, quick=quick)


def _round_robin(servers: int, load: float) -> Experiment:
    name = f"round robin over {servers}, load {load:g}"
    claim = Claim("time", f"{name}: mean time", forms.round_robin_time(servers, load), "E_n/M/1")
    return Experiment(name, _routed(servers, load, lambda _: RoundRobin), (claim,), 25_000)


def _shortest_of_two(load: float, quick: bool = False) -> Experiment:
    name = f"shortest of 2 queues, load {load:g}"
    claim = Claim("time", f"{name}: mean time", forms.shortest_of_two_time(load), "chain on (shorter, longer)")
    return Experiment(name, _routed(2, load, lambda _: Jsq), (claim,), 20_000, quick=quick)


def _choices(servers: int, load: float, d: int) -> Experiment:
    name = f"{d} choices of {servers}, load {load:g}"
    limit, form = forms.choices_time(load, d), forms.choices_time_of(servers, load, d)
    note = f"{limit:.4f} for n -> infinity, the rest is the 1/n term; what is left is of order 1/n^2"
    claim = Claim("time", f"{name}: mean time", form, "Gast & Van Houdt 2017", ASYMPTOTIC, note=note)
    sample = _routed(servers, load, _seeded(lambda seed: PowerOfTwo(seed, d)))
    return Experiment(name, sample, (claim,), 40_000, replications=10)


def _shortest(servers: int, load: float) -> Experiment:
    name = f"shortest of {servers} queues, load {load:g}"
    least = 1 + forms.mmc_wait(servers, servers * load)
    most = forms.round_robin_time(servers, load)
    claims = (
        Claim("time", f"{name}: at least one line for all", least, "Winston 1977", BOUND, above=True),
        Claim("time", f"{name}: at most round robin", most, "Liu & Towsley 1994", BOUND),
    )
    return Experiment(name, _routed(servers, load, lambda _: Jsq), claims, 20_000, replications=10)

"""Deterministic bounds of fair orders: what two tenants that both wait can differ by, on any path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np

from airi_sim.policies.queues import Drr, Fcfs, Sfq, Vtc
from airi_sim.policies.routers import ConsistentHash
from airi_sim.results.columns import Columns
from airi_sim.results.fairness import fairness
from airi_sim.workbench.theory import forms
from airi_sim.workbench.theory.rig import Customers, PassCost, Slots, Station, Tokens, Trace, generate, poisson, run
from airi_sim.workbench.theory.rows import BOUND, Claim, Experiment, Sample

LARGEST = 1000
QUANTUM = 1500.0
WEIGHTS = {"a": 1.0, "b": 2.0, "c": 0.5}
PROMPT, ROOM, BLOCK = 40, 2048, 16
"""Longest prompt, and tokens of KV that a running batch can hold."""


def experiments() -> list[Experiment]:
    """Deficit round robin and start-time fair queueing by admitted tokens, VTC by service, bounded loads by jobs."""
    equal = dict.fromkeys(WEIGHTS, 1.0)
    drr = QUANTUM + 2 * LARGEST
    sfq = LARGEST / WEIGHTS["b"] + LARGEST / WEIGHTS["c"]
    return [
        _admitted("DRR", lambda: Drr(QUANTUM, w_out=0.0), equal, drr, "Shreedhar & Varghese 1995"),
        _admitted("SFQ", lambda: Sfq(WEIGHTS, w_out=0.0), WEIGHTS, sfq, "Goyal et al. 1996", ("b", "c")),
        _served(Vtc, "VTC: service difference of two tenants"),
        _served(Fcfs, "FCFS, the control: beyond that bound", beyond=True),
        _bounded(1000, 10, 0.25),
    ]


def _admitted(
    what: str, queue: Callable[[], Any], weights: dict[str, float], bound: float, source: str,
    pair: tuple[str, ...] | None = None,
) -> Experiment:  # fmt: skip
    """All jobs are there from the start; until one tenant has none left, admitted tokens / weight stay together."""
    tenants = pair or tuple(weights)

    def sample(rng: np.random.Generator, n: int) -> Sample:
        owners = rng.choice(list(weights), n).tolist()
        who = Customers(np.zeros(n), rng.integers(1, LARGEST + 1, n), tenants=owners)
        trace = run([Station(Slots(queue=queue))], who)
        jobs = trace.jobs()
        order = np.argsort(jobs[:, 2], kind="stable")[1:]  # the first came when nobody else was there
        return Sample({"apart": _apart(np.array(owners)[order], who.sizes[order], weights, tenants)})

    claim = Claim("apart", f"{what}: admitted tokens of two tenants", bound, source, BOUND, "tokens", absolute=1e-6)
    return Experiment(f"{what}, admitted tokens", sample, (claim,), 5_000, replications=1, quick=True)


def _apart(owners: np.ndarray, sizes: np.ndarray, weights: dict[str, float], tenants: tuple[str, ...]) -> float:
    """The largest change of a difference of admitted tokens / weight over any stretch in which all of them wait."""
    last = min(int(np.flatnonzero(owners == tenant)[-1]) for tenant in tenants)
    sums = {t: np.cumsum(np.where(owners[:last] == t, sizes[:last], 0)) / weights[t] for t in tenants}
    return max(float(np.ptp(np.append(0.0, sums[a] - sums[b]))) for a, b in combinations(tenants, 2))


def _served(queue: Callable[[], Any], name: str, beyond: bool = False) -> Experiment:
    """Two tenants ask for more than there is, one four times as much as the other: weighted tokens served."""

    def sample(rng: np.random.Generator, n: int) -> Sample:
        owners = rng.choice(["heavy", "light"], n, p=[0.8, 0.2]).tolist()
        outputs = np.minimum(100, rng.geometric(1 / 30, n))
        who = Customers(poisson(rng, 60.0, n), rng.integers(1, PROMPT + 1, n), outputs, owners)
        kind = Tokens(PassCost(0.02), seats=40, queue=queue, blocks=ROOM // BLOCK, block=BLOCK)
        return Sample({"apart": _difference(run([Station(kind, "generate")], who, generate))})

    form = forms.vtc_bound(PROMPT, ROOM)
    claim = Claim("apart", name, form, "Sheng et al. 2024", BOUND, "tokens", above=beyond, absolute=0.0)
    return Experiment(f"{queue.__name__}, service difference", sample, (claim,), 4_000, replications=1, quick=True)


def _difference(trace: Trace) -> float:
    """Of the VTC paper: over any interval in which both tenants wait."""
    requests, jobs = Columns("requests", trace.log.requests), Columns("jobs", trace.log.jobs)
    apart = fairness(requests, jobs, trace.end_s)["max_service_difference"]
    assert apart is not None
    return apart


def _bounded(n: int, servers: int, slack: float) -> Experiment:
    """Everybody comes at once and nobody leaves; keys are as unlike as Zipf's law makes them."""
    form = forms.bounded_load(n, servers, slack)

    def sample(rng: np.random.Generator, _: int) -> Sample:
        owners = [f"k{key}" for key in rng.choice(50, n, p=forms.zipf(50, 1.2))]
        who = Customers(np.zeros(n), np.full(n, 1_000_000), tenants=owners)
        router = lambda: ConsistentHash("tenant", slack)  # noqa: E731
        trace = run([Station(Slots(depth=1 << 30), replicas=servers, router=router)], who)
        counts = Counter(row[5] for row in trace.log.jobs)
        return Sample({"most": max(counts.values())})

    name = f"bounded loads: {n} jobs over {servers}"
    claim = Claim("most", name, form, "Mirrokni et al. 2018", BOUND, "jobs", absolute=0.0)
    return Experiment("consistent hashing with bounded loads", sample, (claim,), replications=1, quick=True)

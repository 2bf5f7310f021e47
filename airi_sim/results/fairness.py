"""Who was served while several wanted to be: Jain's index and the service difference of the VTC paper.

Service of a tenant is `w_p * prompt tokens + w_q * output tokens` with (w_p, w_q) = (1, 2) (Sheng et al., Fairness in
Serving Large Language Models, OSDI 2024). A tenant is backlogged while one of its jobs waits to be started for the
first time. Prompts are booked when a job starts, output tokens evenly between its first token and its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from airi_sim.core.errors import BadInput
from airi_sim.results.columns import Columns, Floats, Ints, codes
from airi_sim.results.curves import Cumulative

PROMPT_WEIGHT = 1.0
OUTPUT_WEIGHT = 2.0
MOST_TENANTS = 16

Intervals = tuple[Floats, Floats]


class Tenant:
    """One tenant: its service over time, and the intervals in which it is backlogged."""

    def __init__(self, name: str, weight: float, service: Cumulative, backlog: Intervals) -> None:
        self.name = name
        self.weight = weight
        self.service = service
        self.backlog = backlog

    def served(self, intervals: Intervals) -> float:
        """Service within the intervals."""
        start, end = intervals
        return float((self.service.at(end, before=True) - self.service.at(start, before=True)).sum())


def fairness(
    requests: Columns, jobs: Columns, end_s: float, weights: Mapping[str, float] | None = None
) -> dict[str, float | None]:
    """`jain` and `max_service_difference`, both over the time in which at least two tenants are backlogged.

    jain: Jain's index of service per backlogged second and weight; 1 is equal, 1/n is everything to one. It is 1 where
    tenants never compete, None without tenants. max_service_difference: the largest |W_u - W_v| over pairs of tenants
    and intervals within their joint backlog; 0 where they never compete. With more than 16 tenants, the 16 that were
    served most are compared.
    """
    everyone = tenants(requests, jobs, end_s, weights)
    if not everyone:
        return {"jain": None, "max_service_difference": None}
    pairs = combinations(everyone, 2)
    return {"jain": _contested_jain(everyone), "max_service_difference": max(map(_difference, pairs), default=0.0)}


def jain(values: Floats) -> float:
    """Jain's fairness index (sum x)^2 / (n * sum x^2); 1 if nobody got anything."""
    squares = float((values**2).sum())
    return float(values.sum()) ** 2 / (len(values) * squares) if squares else 1.0


def tenants(requests: Columns, jobs: Columns, end_s: float, weights: Mapping[str, float] | None = None) -> list[Tenant]:
    """Tenants in order of service, most first; `end_s` ends the wait of jobs that never started."""
    told = by_tenant(requests, jobs).items()
    served = [_tenant(name, theirs, end_s, (weights or {}).get(name, 1.0)) for name, theirs in told]
    return sorted(served, key=lambda one: -one.service.total)[:MOST_TENANTS]


def by_tenant(requests: Columns, jobs: Columns) -> dict[str, dict[str, Floats]]:
    """Times and tokens of the jobs of each tenant, in order of name."""
    names, owner = owners(requests, jobs)
    columns = {name: jobs.floats(name) for name in ("submitted_s", "started_s", "first_s", "finished_s")}
    columns |= {name: np.nan_to_num(jobs.floats(name)) for name in ("tokens_in", "tokens_out")}
    order = np.argsort(owner, kind="stable")
    groups = np.split(order, np.searchsorted(owner[order], np.arange(len(names) + 1)))[1:-1]
    split = zip(names, groups, strict=True)
    return {name: {key: cells[rows] for key, cells in columns.items()} for name, rows in split}


def lags(
    requests: Columns, jobs: Columns, end_s: float, window_s: float, weights: Mapping[str, float] | None = None
) -> tuple[Floats, dict[str, Floats]]:
    """How far each tenant is behind in windows of `window_s` seconds: (ends of the windows, service by tenant).

    In a window W_u is the service of u over its weight, D_u that and what u still waits for at the end of the window;
    u is behind by min(max W - W_u, D_u - W_u), so who asked for less is not behind (Sheng et al., section 5). The last
    window is cut at `end_s`. All tenants count, however many there are.
    """
    if not window_s > 0:
        raise BadInput(f"windows must be longer than 0 seconds, not {window_s}.")
    edges = np.append(np.arange(0.0, end_s, window_s), end_s) if end_s > 0 else np.zeros(1)
    served, missing, none = {}, {}, np.empty(0)
    for name, theirs in by_tenant(requests, jobs).items():
        weight = (weights or {}).get(name, 1.0)
        curve = _service(theirs, end_s).at(edges) / weight
        asked = Cumulative.of((theirs["submitted_s"], _worth(theirs)), (none, none, none)).at(edges) / weight
        served[name], missing[name] = np.diff(curve), np.maximum(asked - curve, 0.0)[1:]
    most = np.max([np.zeros(len(edges) - 1), *served.values()], axis=0)
    return edges[1:], {name: np.minimum(most - served[name], missing[name]) for name in served}


def owners(requests: Columns, jobs: Columns) -> tuple[list[str], Ints]:
    """Names of the tenants, and the place of each job's tenant among them (-1: its request is not in the table)."""
    names, tenant = codes(requests.texts("tenant"))
    ids, wanted = requests.ints("request"), jobs.ints("request")
    if not len(ids):
        return names, np.full(len(wanted), -1)
    order = np.argsort(ids, kind="stable")
    found = order[np.minimum(np.searchsorted(ids[order], wanted), len(ids) - 1)]
    return names, np.where(ids[found] == wanted, tenant[found], -1)


def _tenant(name: str, jobs: Mapping[str, Floats], end_s: float, weight: float) -> Tenant:
    begun = jobs["started_s"]
    waited = union(jobs["submitted_s"], np.where(np.isnan(begun), _ends(jobs, end_s), begun))
    return Tenant(name, weight, _service(jobs, end_s), waited)


def _service(jobs: Mapping[str, Floats], end_s: float) -> Cumulative:
    prompts, outputs = PROMPT_WEIGHT * jobs["tokens_in"], OUTPUT_WEIGHT * jobs["tokens_out"]
    return Cumulative.of((jobs["started_s"], prompts), (jobs["first_s"], _ends(jobs, end_s), outputs))


def _worth(jobs: Mapping[str, Floats]) -> Floats:
    return PROMPT_WEIGHT * jobs["tokens_in"] + OUTPUT_WEIGHT * jobs["tokens_out"]


def _ends(jobs: Mapping[str, Floats], end_s: float) -> Floats:
    return np.where(np.isnan(jobs["finished_s"]), end_s, jobs["finished_s"])


def union(start: Floats, end: Floats) -> Intervals:
    """The intervals [start, end) merged into disjoint ones, in order."""
    kept = end > start
    order = np.argsort(start[kept], kind="stable")
    start, reach = start[kept][order], np.maximum.accumulate(end[kept][order])
    fresh = np.append(True, start[1:] > reach[:-1])[: len(start)]
    return start[fresh], reach[np.append(fresh[1:], True)[: len(start)]]


def overlapping(sets: list[Intervals], least: int = 2) -> Intervals:
    """Where at least so many of the sets of disjoint intervals overlap, as disjoint intervals."""
    starts, ends = (np.concatenate(side) for side in zip(*sets, strict=True))
    times = np.concatenate([ends, starts])
    change = np.concatenate([-np.ones(len(ends)), np.ones(len(starts))])
    order = np.argsort(times, kind="stable")
    crowded = np.cumsum(change[order]) >= least
    turning = np.diff(crowded, prepend=False)
    return union(times[order][turning & crowded], times[order][turning & ~crowded])


def _contested_jain(everyone: list[Tenant]) -> float:
    contested = overlapping([tenant.backlog for tenant in everyone])
    rates = []
    for tenant in everyone:
        own = overlapping([tenant.backlog, contested])
        length = float((own[1] - own[0]).sum())
        if length > 0:
            rates.append(tenant.served(own) / length / tenant.weight)
    return jain(np.array(rates)) if rates else 1.0


def _difference(pair: tuple[Tenant, Tenant]) -> float:
    """Largest change of W_u/weight - W_v/weight within one interval of joint backlog."""
    u, v = pair
    start, end = overlapping([u.backlog, v.backlog])
    if not len(start):
        return 0.0
    events = np.union1d(u.service.changes(), v.service.changes())
    within = np.searchsorted(start, events, side="right") - 1
    inside = (within >= 0) & (events < end[within])
    events, within = events[inside], within[inside]
    numbers = np.arange(len(start))
    place = np.concatenate([numbers, numbers, within, within])
    before = _ahead(u, v, np.concatenate([start, end, events]), True)
    ahead = np.concatenate([before, _ahead(u, v, events, False)])
    most, least = np.full(len(start), -np.inf), np.full(len(start), np.inf)
    np.maximum.at(most, place, ahead)
    np.minimum.at(least, place, ahead)
    return float((most - least).max())


def _ahead(u: Tenant, v: Tenant, times: Floats, before: bool) -> Floats:
    return u.service.at(times, before) / u.weight - v.service.at(times, before) / v.weight

"""Service level objectives: which offered requests met all of them, and up to which load enough do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from airi_sim.core.errors import BadInput, unknown
from airi_sim.results.columns import Floats

OBJECTIVES = ("ttft_s", "tpot_s", "e2e_s", "queue_s")


def objectives(slo: Mapping[str, float | None] | None) -> dict[str, float]:
    """The limits that are set, checked. Keys: ttft_s, tpot_s, e2e_s, queue_s, in seconds."""
    limits = {name: limit for name, limit in (slo or {}).items() if limit is not None}
    for name, limit in limits.items():
        if name not in OBJECTIVES:
            raise unknown("SLO", name, OBJECTIVES)
        if not limit > 0:
            raise BadInput(f"the SLO {name} must be a positive number of seconds, not {limit}.")
    return limits


def met(finished: NDArray[np.bool_], latencies: Mapping[str, Floats], limits: Mapping[str, float]) -> NDArray[np.bool_]:
    """Per offered request: it finished and kept every limit. A latency that is undefined for a finished request (the
    time per output token of a single token) keeps its limit."""
    good = finished.copy()
    for name, limit in limits.items():
        good &= ~(latencies[name] > limit)
    return good


class Goodput(NamedTuple):
    """The highest load at which enough requests met their objectives; `bounded`: a higher one was tried and failed."""

    rate: float
    bounded: bool


def highest_rate(loads: Sequence[float], attained: Sequence[float], least: float = 0.9) -> Goodput | None:
    """Goodput as DistServe means it (Zhong et al., OSDI 2024): the highest rate with an attainment of `least`, from a
    sweep over loads (attained[i] at loads[i]); divide by the accelerators to compare. Between the last load that keeps
    it and the first that does not, attainment is taken as a line. None if not even the lowest load keeps it."""
    if len(loads) != len(attained) or not len(loads):
        raise BadInput(f"a sweep has one attainment a load: there are {len(loads)} loads and {len(attained)} of those.")
    order = np.argsort(loads)
    rates, shares = np.asarray(loads, dtype=np.float64)[order], np.asarray(attained, dtype=np.float64)[order]
    failing = np.flatnonzero(~(shares >= least))
    if not len(failing):
        return Goodput(float(rates[-1]), False)
    after = int(failing[0])
    if after == 0:
        return None
    x, y = rates[after - 1 : after + 1], shares[after - 1 : after + 1]
    way = (y[0] - least) / (y[0] - y[1]) if np.isfinite(y[1]) else 0.0
    return Goodput(float(x[0] + way * (x[1] - x[0])), True)

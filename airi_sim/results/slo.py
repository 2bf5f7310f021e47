"""Service level objectives: which offered requests met all of them."""

from __future__ import annotations

from collections.abc import Mapping

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

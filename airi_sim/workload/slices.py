"""A slice of a published trace where the data is at hand, else a synthetic stand-in with the same statistics."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from airi_sim.core.errors import BadInput
from airi_sim.workload.checks import real
from airi_sim.workload.data import SHORT, find
from airi_sim.workload.synthetic import Synthetic
from airi_sim.workload.traces import Scale, Trace


def trace_or_stand_in(
    path: str,
    stand_in: Mapping[str, Any],
    data_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    limit: int = 200,
    rate_scale: float = 1.0,
    program: str = "chat",
    **options: Any,
) -> Trace | Synthetic:
    """The first `limit` rows of the trace `path`, read with `options`. Where `path` is the short name of a published
    trace that is not at hand: as many requests of `Synthetic(**stand_in)` at `rate_scale` times its rate; `name` and a
    warning say which it is. Any other path that does not exist is BadInput."""
    if path in SHORT and not at_hand(path, data_dir):
        Scale.of(options.get("scale"))  # what would be wrong with the trace is wrong without it too
        rate = real("workload.rate_scale", rate_scale, positive=True) * stand_in["rate"]
        workload = Synthetic(**{**stand_in, "rate": rate, "n": limit, "seed": seed, "program": program})
        workload.warnings = [f"trace '{path}' is not in the data folder: a synthetic stand-in with its statistics ran."]
        return workload
    return Trace(path, data_dir=data_dir, limit=limit, rate_scale=rate_scale, program=program, **options)


def at_hand(path: str, data_dir: str | os.PathLike[str] | None) -> bool:
    """Whether the trace can be found."""
    try:
        find(path, data_dir)
    except BadInput:
        return False
    return True

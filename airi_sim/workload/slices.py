"""A slice of a published trace where the data is at hand, else a synthetic stand-in with the same statistics."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from airi_sim.core.errors import BadInput
from airi_sim.workload.data import find
from airi_sim.workload.synthetic import Synthetic
from airi_sim.workload.traces import Trace


def trace_or_stand_in(
    path: str,
    stand_in: Mapping[str, Any],
    data_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    **options: Any,
) -> Trace | Synthetic:
    """The trace `path` read with `options`, or `Synthetic(**stand_in)`; `name` and a warning say which it is."""
    try:
        find(path, data_dir)
    except BadInput:
        workload = Synthetic(seed=seed, **stand_in)
        workload.warnings = [f"trace '{path}' is not in the data folder: a synthetic stand-in with its statistics ran."]
        return workload
    return Trace(path, data_dir=data_dir, **options)

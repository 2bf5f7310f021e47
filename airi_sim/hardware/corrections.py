"""Physics times a table: matrix products corrected by how far the formula was off at neighbouring shapes.

The logarithm of measured / formula at the nearest timings, weighed by their distance in doublings; a shape without
neighbours gets no correction, so the formula rules where the table ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import exp, log2
from typing import Any

import numpy as np

Correction = Callable[[float, float, float], float]

NEIGHBOURS = 4
REACH = 1.0
"""Doublings (over all three sides together) beyond which a timing says nothing."""
NEAR = 0.02
"""Doublings within which a timing counts as the same shape."""


def correction(tables: Mapping[str, Any]) -> Correction | None:
    """Factor on the time of a product of m tokens with an n x k weight; None without a table."""
    table = tables.get("gemm")
    if not table:
        return None
    places = np.log2(np.column_stack([table[name] for name in ("m", "n", "k")]).astype(float))
    errors = np.asarray(table["log_ratio"], dtype=float)

    def factor(m: float, n: float, k: float) -> float:
        apart = np.abs(places - (log2(max(m, 1)), log2(n), log2(k))).sum(axis=1)
        some = (
            np.argpartition(apart, NEIGHBOURS)[: NEIGHBOURS + 1] if len(apart) > NEIGHBOURS else np.arange(len(apart))
        )
        nearest = some[np.argsort(apart[some], kind="stable")][:NEIGHBOURS]
        weight = np.maximum(0.0, 1 - apart[nearest] / REACH) / (apart[nearest] + NEAR)
        if not weight.any():
            return 1.0
        trust = 1 - apart[nearest[0]] / REACH
        return exp(float(weight @ errors[nearest] / weight.sum()) * trust)

    return factor

"""Columns of a view: the least, the spread, who is up."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

MANY = 64
"""From so many replicas on, numpy finds the least of a column faster than `min` does."""


def least(loads: Sequence[float], up: Sequence[int]) -> int:
    """The replica with the least load among those that are up; ties go to the lowest index."""
    many = len(loads) >= MANY and isinstance(loads, array)
    best = int(_as_numpy(loads).argmin()) if many else loads.index(min(loads))
    if up[best]:
        return best
    return min((i for i in range(len(loads)) if up[i]), key=loads.__getitem__, default=best)


def spread(loads: Sequence[int], up: Sequence[int]) -> tuple[int, int]:
    """The least and the greatest load among the replicas that are up; (0, 0) if none is."""
    if len(loads) >= MANY and isinstance(loads, array) and isinstance(up, array):
        alive = _as_numpy(loads)[_as_numpy(up) != 0]
        return (int(alive.min()), int(alive.max())) if len(alive) else (0, 0)
    if 0 in up:
        loads = [load for load, alive in zip(loads, up, strict=True) if alive] or [0]
    return min(loads), max(loads)


def _as_numpy(column: Any) -> Any:
    """The column of an array, not copied. Imported late: small pools do without numpy."""
    import numpy as np

    return np.frombuffer(column, dtype=column.typecode)


def alive(up: Sequence[int]) -> list[int]:
    """The replicas that are up; all of them where none is, for then any is as good."""
    return [i for i, it in enumerate(up) if it] or list(range(len(up)))


def total(one: Sequence[int], other: Sequence[int]) -> list[int]:
    """The sum of two columns."""
    return [a + b for a, b in zip(one, other, strict=True)]

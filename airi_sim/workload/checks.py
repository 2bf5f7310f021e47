"""Checks of numbers that users give; every message names the key and says what is allowed."""

from __future__ import annotations

from math import isfinite
from numbers import Real
from typing import Any

from airi_sim.core.errors import BadInput

LONGEST_S = 1e12
"""The last second of a workload: beyond it a float no longer tells tenths of a millisecond apart."""


def check_last(key: str, value: Any, last_s: float) -> None:
    """BadInput if the `value` of a key puts the last arrival, at `last_s`, where times are not exact."""
    if last_s > LONGEST_S:
        raise BadInput(f"{key}={value!r} puts arrivals after {LONGEST_S:g} s, where times are not exact; raise it.")


def whole(key: str, value: Any, least: int) -> int:
    """`value` as an int of at least `least`, else BadInput."""
    exact = isinstance(value, Real) and not isinstance(value, bool) and isfinite(value) and value % 1 == 0
    if not exact or value < least:
        raise BadInput(f"{key} must be a whole number of at least {least}, not {value!r}.")
    return int(value)


def real(key: str, value: Any, *, positive: bool = False) -> float:
    """`value` as a finite float, at least 0 (or greater than 0), else BadInput."""
    number = isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)
    if not number or value < 0 or (positive and value == 0):
        raise BadInput(f"{key} must be a number {'greater than 0' if positive else 'of at least 0'}, not {value!r}.")
    return float(value)

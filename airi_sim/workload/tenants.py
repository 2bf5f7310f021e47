"""Tenants and models: labels for the requests of any workload, independent of everything else in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any

import numpy as np

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import Workload
from airi_sim.core.types import Item, Request
from airi_sim.workload.checks import real
from airi_sim.workload.seeds import stream

CHUNK = 8192
_FIELDS = tuple(field.name for field in fields(Request))
_values = attrgetter(*_FIELDS)


class Labelled:
    """A workload whose n-th request gets a label drawn with the given weights: its `tenant`, or its `model`.

    The draw depends on the seed and on n alone, so lengths and times are untouched, and another workload with the
    same seed gets the same sequence of labels. Labels of the workload itself are replaced, in copies.
    """

    def __init__(self, workload: Workload, weights: Mapping[str, float], seed: int = 0, field: str = "tenant") -> None:
        self.workload = workload
        self.name = workload.name
        self.hash_block = workload.hash_block
        self.warnings: list[str] = getattr(workload, "warnings", [])
        self.labels, self._ends = _shares(weights, f"workload.{field}s")
        self.seed, self.field = seed, field
        stream(seed, f"{field}s")

    def __iter__(self) -> Iterator[Item]:
        place = _FIELDS.index(self.field)
        for label, (request, output) in zip(self._draws(), self.workload, strict=False):
            values = list(_values(request))
            values[place] = label
            yield Item(Request(*values), output)

    def _draws(self) -> Iterator[str]:
        rng = stream(self.seed, f"{self.field}s")
        while True:
            chosen = np.searchsorted(self._ends, rng.random(CHUNK), side="right")
            yield from map(self.labels.__getitem__, chosen.tolist())


def build(workload: Workload, tenants: Mapping[str, float] | None, seed: int = 0) -> Workload:
    """The workload with its tenants: `tenants` None leaves it as it is, {name: weight} labels every request."""
    return workload if tenants is None else Labelled(workload, tenants, seed)


def zipf(names: Sequence[str], exponent: float) -> dict[str, float]:
    """Weights of which the k-th is k**-exponent (0: all alike)."""
    return {name: k**-exponent for k, name in enumerate(names, 1)}


def _shares(given: Mapping[str, float], key: str) -> tuple[list[str], np.ndarray]:
    """Names in alphabetical order (so that the order in a file does not matter), and where their shares end."""
    if not isinstance(given, Mapping) or not given:
        raise BadInput(f"{key} must be {{name: weight}} with at least one name, or null, not {given!r}.")
    weights: dict[str, Any] = {str(name): real(f"{key}.{name}", weight) for name, weight in given.items()}
    names = sorted(name for name, weight in weights.items() if weight > 0)
    if not names:
        raise BadInput(f"{key}: at least one weight must be greater than 0.")
    ends = np.cumsum([weights[name] for name in names])
    ends /= ends[-1]
    return names, ends

"""Tenants: labels for the requests of any workload, independent of everything else in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
_TENANT = _FIELDS.index("tenant")


class Labelled:
    """A workload whose n-th request belongs to a tenant drawn with the given weights.

    The draw depends on the seed and on n alone, so lengths and times are untouched, and another workload with the
    same seed gets the same sequence of tenants. Labels of the workload itself are replaced, in copies.
    """

    def __init__(self, workload: Workload, tenants: Mapping[str, float], seed: int = 0) -> None:
        self.workload = workload
        self.name = workload.name
        self.hash_block = workload.hash_block
        self.warnings: list[str] = getattr(workload, "warnings", [])
        self.tenants, self._ends = _shares(tenants)
        self.seed = seed
        stream(seed, "tenants")

    def __iter__(self) -> Iterator[Item]:
        for tenant, (request, output) in zip(self._draws(), self.workload, strict=False):
            values = list(_values(request))
            values[_TENANT] = tenant
            yield Item(Request(*values), output)

    def _draws(self) -> Iterator[str]:
        rng = stream(self.seed, "tenants")
        while True:
            chosen = np.searchsorted(self._ends, rng.random(CHUNK), side="right")
            yield from map(self.tenants.__getitem__, chosen.tolist())


def build(workload: Workload, tenants: Mapping[str, float] | None, seed: int = 0) -> Workload:
    """The workload with its tenants: `tenants` None leaves it as it is, {name: weight} labels every request."""
    return workload if tenants is None else Labelled(workload, tenants, seed)


def _shares(tenants: Mapping[str, float]) -> tuple[list[str], np.ndarray]:
    """Names in alphabetical order (so that the order in a file does not matter), and where their shares end."""
    if not isinstance(tenants, Mapping) or not tenants:
        raise BadInput(f"workload.tenants must be {{name: weight}} with at least one tenant, or null, not {tenants!r}.")
    weights: dict[str, Any] = {str(name): real(f"workload.tenants.{name}", w) for name, w in tenants.items()}
    names = sorted(name for name, weight in weights.items() if weight > 0)
    if not names:
        raise BadInput("workload.tenants: at least one weight must be greater than 0.")
    ends = np.cumsum([weights[name] for name in names])
    ends /= ends[-1]
    return names, ends

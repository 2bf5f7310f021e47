"""Collectives as they were measured on a node, by operation, serving engine and ranks, and what to expect beyond that.

A collective takes alpha + size * share / bus seconds: `share` of the bytes cross the bus, which is 2 (n-1)/n of them in
an all-reduce and (n-1)/n in the others (the convention of NCCL's tests). Engines bring their own kernels, so the tables
belong to node and engine, not to the accelerator.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

from airi_sim.core.errors import BadInput, unknown

if TYPE_CHECKING:
    from airi_sim.hardware.network import Node

OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
ALPHA_S, ALPHA_RANK_S = 6.2e-6, 2.23e-6
"""Fixed time of a collective nobody measured, and its part per rank: a line through the median NCCL all-reduce of ten
nodes (10.7, 15.9, 24.1 us on 2, 4, 8 ranks)."""

Tables = Mapping[str, Mapping[str, Mapping[int, tuple[float, float]]]]


class Collective(NamedTuple):
    """Seconds before any byte, bytes/s of the bus, and why one should doubt them ("" if they were measured)."""

    alpha_s: float
    bus: float
    doubt: str = ""

    def per_byte(self, operation: str, ranks: int) -> float:
        """Seconds for each byte of the vector (of the whole result or input in the others)."""
        return (2 if operation == "all_reduce" else 1) * (ranks - 1) / ranks / self.bus


def collective(node: Node, operation: str, engine: str, ranks: int) -> Collective:
    """`operation` by the kernels of `engine` (else NCCL's) over `ranks` accelerators, node after node."""
    if operation not in OPERATIONS:
        raise unknown("collective", operation, OPERATIONS)
    tables = node.collectives.get(operation) or {}
    table = tables.get(engine) or tables.get("nccl") or {}
    if ranks in table:
        return Collective(*table[ranks])
    where = f"{operation} over {ranks} ranks of node '{node.name}'"
    found = _inside(table, ranks, where) if table else _unmeasured(node, ranks, where)
    return found if ranks <= node.accelerators else _across(node, found, ranks, where)


def check_tables(node: str, tables: Any) -> Tables:
    """BadInput unless it is {operation: {engine: {ranks: [alpha_s, bytes/s]}}}."""
    for operation, engines in tables.items():
        if operation not in OPERATIONS:
            raise unknown(f"collective of node '{node}'", str(operation), OPERATIONS)
        for engine, rows in engines.items():
            for ranks, row in rows.items():
                if not (isinstance(ranks, int) and ranks > 1 and len(row) == 2 and row[0] >= 0 and row[1] > 0):
                    raise BadInput(
                        f"node '{node}': {operation} of {engine} over {ranks} ranks must be [seconds, bytes/s], such "
                        f"as 2: [1.0e-05, 2.0e+11], not {row}."
                    )
    return tables


def _inside(table: Mapping[int, tuple[float, float]], ranks: int, where: str) -> Collective:
    """On the line between the measured neighbours; beyond the last, on the line through the last two, its bus kept."""
    known = sorted(table)
    above = next((n for n in known if n > ranks), None)
    below = max((n for n in known if n < ranks), default=known[0])
    other = above or max((n for n in known if n < below), default=below)
    weight = (ranks - below) / (other - below) if other != below else 0.0
    (alpha, bus), (other_alpha, other_bus) = table[below], table[other]
    seconds = max(alpha + weight * (other_alpha - alpha), min(alpha, other_alpha))
    if above:
        return Collective(seconds, bus + weight * (other_bus - bus), f"{where} was interpolated.")
    return Collective(seconds, bus, f"{where} was extrapolated: measured up to {known[-1]}.")


def _unmeasured(node: Node, ranks: int, where: str) -> Collective:
    doubt = f"{where} was never measured: it has the bandwidth of the link and the usual fixed time."
    return Collective(ALPHA_S + ALPHA_RANK_S * ranks, node.link("scale_up").rate, doubt)


def _across(node: Node, inside: Collective, ranks: int, where: str) -> Collective:
    """A ring through several nodes: all network cards of a node carry it out of that node."""
    machines, nic = ceil(ranks / node.accelerators), node.link("nic")
    doubt = f"{where} crosses {machines} nodes, which was never measured: its network cards bound it."
    return Collective(inside.alpha_s + 2 * (machines - 1) * nic.latency_s, min(inside.bus, node.nics * nic.rate), doubt)

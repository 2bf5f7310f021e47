"""Pools whose replicas hand jobs on to each other: who belongs together, where they stand, what joins them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from airi_sim.core.errors import BadInput
from airi_sim.core.log import Log
from airi_sim.core.types import FOREVER
from airi_sim.engine.links import LinkExecutor
from airi_sim.hardware.network import Topology, node_around
from airi_sim.models.spec import kept_precision
from airi_sim.policies.queues import Fcfs
from airi_sim.policies.routers import RoundRobin
from airi_sim.runtime.pool import Pool
from airi_sim.runtime.service import Link
from airi_sim.runtime.view import Board
from airi_sim.workbench.pools import PoolPlan

NAME = "kv_link"
"""Of the server, and the pool, whose jobs are moves."""


@dataclass(frozen=True)
class Wiring:
    """What a run with prefill and decode pools has besides: the link as a server, and what runs its plans."""

    pool: Pool
    link: Link
    executor: LinkExecutor
    kv_bytes: dict[str, Callable[[int], int]]
    warnings: tuple[str, ...] = ()


def level(plans: Sequence[PoolPlan], measured: bool) -> list[PoolPlan]:
    """Pools that hand on to each other take sequences that fit in all of them. BadInput for a role without its
    counterpart, one that cannot take what the other sends, or any role in a `measured` run."""
    if measured and any(plan.role != "both" for plan in plans):
        raise BadInput("pools of role prefill or decode can only be simulated: use backend=sim, or the role both.")
    return [_levelled(plan, _partners(plan, plans)) if plan.role != "both" else plan for plan in plans]


def _partners(plan: PoolPlan, plans: Sequence[PoolPlan]) -> list[PoolPlan]:
    model = plan.deployment.model
    name, wanted = model.name if model is not None else "", "decode" if plan.role == "prefill" else "prefill"
    same = [other for other in plans if other.deployment.model == model and other.role != "both"]
    if plan.deployment.kind != "generate" or wanted not in [other.role for other in same]:
        raise BadInput(
            f"pool '{plan.deployment.name}' has the role {plan.role}, but no pool of role {wanted} generates with "
            f"'{name}': name both in pools."
        )
    return same


def _levelled(plan: PoolPlan, partners: Sequence[PoolPlan]) -> PoolPlan:
    sizes = {other.deployment.block_size for other in partners}
    if len(sizes) > 1:
        found = ", ".join(map(str, sorted(sizes)))
        raise BadInput(f"pools that hand KV to each other need the same server.block_size, not {found}.")
    limits = [other.server["max_model_len"] for other in partners if other.server["max_model_len"]]
    rooms = [other.deployment.kv_blocks * other.deployment.block_size for other in partners]
    lengths = [other.deployment.model.max_len for other in partners if other.deployment.model is not None]
    return replace(plan, server={**plan.server, "max_model_len": min([*limits, *rooms, *lengths])})


def wire(plans: Sequence[PoolPlan], transfer: Mapping[str, Any], log: Log) -> Wiring | None:
    """The link between prefill and decode pools; None for a run without roles."""
    joined = [plan for plan in plans if plan.role != "both"]
    if not joined:
        return None
    if NAME in [plan.deployment.name for plan in plans]:
        raise BadInput(f"'{NAME}' is the name of the link between prefill and decode pools: rename that pool.")
    link = Link(NAME, sum(plan.deployment.replicas for plan in plans), Fcfs, log, depth=FOREVER)
    pool = Pool(NAME, "move", "", [link], RoundRobin(), Board([link]))
    layers = min(plan.deployment.model.layers for plan in joined if plan.deployment.model is not None)
    topology = _topology(plans, transfer["together"])
    executor = LinkExecutor(topology, layers if transfer["layerwise"] else 0)
    return Wiring(pool, link, executor, {plan.deployment.name: _kv_bytes(plan) for plan in joined}, _doubts(topology))


def _doubts(topology: Topology) -> tuple[str, ...]:
    """One sentence for each kind of machine whose links nobody measured."""
    nodes = {place.node.name: place.node for place in topology.places.values()}
    return tuple(
        f"KV moves over links of node '{node.name}' that are of {node.confidence} confidence."
        for node in nodes.values()
        if node.confidence not in ("high", "measured")
    )


def _kv_bytes(plan: PoolPlan) -> Callable[[int], int]:
    """Bytes of the KV of so many tokens, on all accelerators of a replica together."""
    model, precision = plan.deployment.model, kept_precision(plan.deployment.precision)
    assert model is not None
    return lambda tokens: round(model.kv_bytes(tokens, precision))


def _topology(plans: Sequence[PoolPlan], together: bool) -> Topology:
    """Replicas on machines: each pool on machines of its own, or dealt one by one onto machines of the same kind."""
    topology = Topology()
    firsts = [sum(plan.deployment.replicas for plan in plans[:i]) for i in range(len(plans))]
    seats = [
        [(first + i, plan) for i in range(plan.deployment.replicas)]
        for first, plan in zip(firsts, plans, strict=True)
        if plan.role != "both"
    ]
    dealt = [seat for row in zip_longest(*seats) for seat in row] if together else [s for pool in seats for s in pool]
    for server, plan in [seat for seat in dealt if seat is not None]:
        node = node_around(plan.deployment.accelerator)
        topology.place(server, node, plan.deployment.tp, node.name if together else plan.deployment.name)
    return topology

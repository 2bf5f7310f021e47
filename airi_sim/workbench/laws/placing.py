"""The world that a placement is tried in: models that share one device, which has no room for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airi_sim.core.log import Log
from airi_sim.core.types import Affine, Plan
from airi_sim.policies.queues import Fcfs
from airi_sim.policies.routers import RoundRobin
from airi_sim.runtime.places import HostCopies, Loader, Memory, Spot, placed
from airi_sim.runtime.pool import Pool
from airi_sim.runtime.view import Board

DEVICE = "device"
SLOW_S, FAST_S = 0.5, 0.1
"""Seconds of a load, and of one of which the host has a copy, on hardware of scale 1."""


class Loads:
    """How long loads and unloads take."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def affine(self, plan: Plan) -> Affine:
        if plan.kind == "unload":
            return Affine(0.0)
        return Affine(self.scale * (FAST_S if plan.slices[0][0].tier == "host" else SLOW_S))


def on_one_device(pools: Sequence[Pool], room: float, host: float, log: Log) -> tuple[list[Pool], dict[str, Any]]:
    """The pools, placed on a device with room for so many of them (the host: for copies of so many), a loader's pool
    last; and what a PlacingRuntime needs besides a placement. Models are a little unlike in size."""
    servers = [server for pool in pools for server in pool.servers]
    loader = Loader(f"{DEVICE}/0", len(servers), Fcfs, log)
    memory = Memory(DEVICE, room, loader)
    found: list[Pool] = []
    for i, pool in enumerate(pools):
        size = 0.8 + 0.2 * i / len(pools)
        spots = [Spot(server, pool.model, DEVICE, size, size) for server in pool.servers]
        memory.spots += spots
        found.append(placed(pool, spots))
    found.append(Pool(DEVICE, "load", "", [loader], RoundRobin(), Board([loader])))
    return found, {"memories": [memory], "host": HostCopies(host, "nvme")}

"""Pools that share devices: what their replicas need there, what a device holds, and who brings models to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from airi_sim.core.errors import BadInput, unknown
from airi_sim.core.log import Log
from airi_sim.core.protocols import Executor, Script
from airi_sim.engine.backends import Backend, server_name
from airi_sim.engine.turns import Device
from airi_sim.hardware.deployment import Deployment
from airi_sim.models.spec import kept_precision
from airi_sim.policies.queues import Fcfs
from airi_sim.policies.routers import RoundRobin
from airi_sim.runtime.placement import PlacingRuntime
from airi_sim.runtime.places import HostCopies, Loader, Memory, Spot, placed
from airi_sim.runtime.pool import Pool
from airi_sim.runtime.runtime import Runtime
from airi_sim.runtime.view import Board
from airi_sim.workbench.plugins import maker
from airi_sim.workbench.pools import PoolPlan


@dataclass(frozen=True)
class Residence:
    """What a run whose pools share devices has besides: all its `pools`, those of the loaders last; executors of the
    loaders; the `runtime` to make; the device of each server, which takes turns there (None: one of its own)."""

    pools: list[Pool]
    executors: list[Executor]
    runtime: Callable[..., Runtime]
    turns: list[Device | None]


def settle(
    plans: Sequence[PoolPlan],
    pools: Sequence[Pool],
    config: Mapping[str, Any],
    log: Log,
    backend: Backend,
    script: Script,
) -> Residence | None:
    """The loaders and memories of the devices that pools share; None if none does. `pools` are all others, those of
    `plans` first. BadInput for what cannot be placed."""
    homes = _homes(plans)
    if not homes:
        return None
    servers = [server for pool in pools for server in pool.servers]
    memories, loaders, executors = [], [], []
    for i, (name, shared) in enumerate(homes.items()):
        deployment = _loader(name, shared, config["memory"])
        loader = Loader(server_name(name, 0), len(servers) + i, Fcfs, log)
        memories.append(Memory(name, _budget(name, shared, config, backend.source != "sim"), loader))
        loaders.append(Pool(name, "load", "", [loader], RoundRobin(), Board([loader])))
        executors.append(backend.executor(deployment, 0, script))
    spots = _spots(plans, servers)
    for memory in memories:
        memory.spots += [spot for each in spots for spot in each if spot.device == memory.name]
        _check(memory)
    given = config["memory"]
    placing = partial(
        PlacingRuntime, placement=maker("placement", config["policy"]["placement"])(), memories=memories,
        host=HostCopies(given["host_bytes"], given["tier"]),
    )  # fmt: skip
    kept = [placed(pool, own) if own else pool for pool, own in zip(pools, spots, strict=False)]
    return Residence([*kept, *pools[len(kept) :], *loaders], executors, placing, _turns(memories, len(servers)))


def _homes(plans: Sequence[PoolPlan]) -> dict[str, list[PoolPlan]]:
    """The pools on each device, by its name."""
    found: dict[str, list[PoolPlan]] = {}
    names = [plan.deployment.name for plan in plans]
    for plan in plans:
        for device in dict.fromkeys(plan.deployment.devices):
            if device in names:
                raise BadInput(f"'{device}' is the name of a pool and of a device: rename one of them.")
            found.setdefault(device, []).append(plan)
        if plan.deployment.devices:
            _check_plan(plan)
    models = [plan.deployment.model.name for plan in plans if plan.deployment.devices and plan.deployment.model]
    twice = next((model for model in models if models.count(model) > 1), None)
    if twice:
        raise BadInput(
            f"two pools that share devices serve model '{twice}': make it one pool with replicas on several devices "
            "(device: [a, b], replicas: 2), or copies of it."
        )
    return found


def _check_plan(plan: PoolPlan) -> None:
    """BadInput for pools that cannot be placed."""
    deployment, where = plan.deployment, f"pools.{plan.deployment.name}"
    if deployment.kind != "generate" or plan.role != "both":
        raise BadInput(f"{where}.device: only pools of kind generate and role both share devices.")
    if deployment.speculation is not None:
        raise BadInput(
            f"{where} shares a device and speculates: a draft model cannot come and go, take one of the two."
        )
    if not plan.server["kv_blocks"]:
        raise BadInput(
            f"{where} shares a device: say how much of it is for KV with server.kv_blocks, for it cannot be what the "
            "other models leave."
        )


def _loader(name: str, shared: Sequence[PoolPlan], memory: Mapping[str, Any]) -> Deployment:
    """What brings models to a device, as a deployment."""
    one = shared[0].deployment
    if any(plan.deployment.accelerator != one.accelerator for plan in shared):
        raise BadInput(f"the pools of device '{name}' name unlike accelerators: give them one.")
    service = {name: memory[name] for name in ("init_s", "host_bytes", "tier")}
    return replace(one, name=name, kind="load", model=None, replicas=1, devices=(), family="", service=service)


def _budget(name: str, shared: Sequence[PoolPlan], config: Mapping[str, Any], measured: bool) -> float:
    """Bytes of a device for weights and KV."""
    given = config["memory"]["bytes"]
    if isinstance(given, Mapping) and name not in given:
        raise unknown("device in memory.bytes", name, given)
    if given is not None:
        return float(given[name] if isinstance(given, Mapping) else given)
    if measured:
        raise BadInput(f"pools share device '{name}': say how many bytes it has for them with memory.bytes.")
    plan = shared[0]
    whole: float = plan.deployment.accelerator.memory_bytes * plan.deployment.tp
    return whole * plan.server["gpu_memory_utilization"]


def _spots(plans: Sequence[PoolPlan], servers: Sequence[Any]) -> list[list[Spot]]:
    """The replicas of each pool that are placed; none of a pool that shares nothing."""
    found, first = [], 0
    for plan in plans:
        own = servers[first : first + plan.deployment.replicas]
        first += plan.deployment.replicas
        devices = plan.deployment.devices
        found.append([_spot(plan, server, devices[i % len(devices)]) for i, server in enumerate(own) if devices])
    return found


def _spot(plan: PoolPlan, server: Any, device: str) -> Spot:
    deployment, model = plan.deployment, plan.deployment.model
    assert model is not None
    weights = model.weight_bytes(deployment.precision)
    tokens = deployment.kv_blocks * deployment.block_size
    kv = tokens * model.kv_bytes_per_token(kept_precision(deployment.precision))
    return Spot(server, model.name, device, weights, weights + kv, deployment.tp)


def _check(memory: Memory) -> None:
    """BadInput for a model that does not even fit alone."""
    for spot in memory.spots:
        if spot.size > memory.budget:
            raise BadInput(
                f"model '{spot.model}' needs {spot.size:.3g} bytes for weights and KV, but device '{memory.name}' has "
                f"{memory.budget:.3g}: give it more (memory.bytes), or the pool a smaller server.kv_blocks."
            )


def _turns(memories: Sequence[Memory], servers: int) -> list[Device | None]:
    """Replicas on one device run one at a time there; loads go beside them."""
    shared = {memory.name: Device() for memory in memories}
    device = {spot.server.index: shared[memory.name] for memory in memories for spot in memory.spots}
    return [device.get(i) for i in range(servers)] + [None] * len(memories)

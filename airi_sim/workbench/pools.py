"""From the config of a run to its deployments: what each pool runs, on what, under which policies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from typing import Any

from airi_sim.core.errors import unknown
from airi_sim.hardware.cost import kv_blocks
from airi_sim.hardware.deployment import Deployment
from airi_sim.workbench.plugins import group_node, policy_node
from airi_sim.workbench.schema import check_server

KINDS = ("generate", "embed", "search")
KEYS = ("kind", "model", "accelerator", "replicas", "tp", "pp", "role", "node", "server", "policy", "service")
CALLS = {"rag": ("embed", "search")}
"""Services that a built-in program calls besides the model."""


@dataclass(frozen=True)
class PoolPlan:
    """One pool: its deployment, the limits of its servers, and the config nodes of its policies."""

    deployment: Deployment
    server: dict[str, Any]
    policies: dict[str, Mapping[str, Any]]


def instantiate(node: Mapping[str, Any], what: str) -> Any:
    """The object a config node describes (`_target_` and arguments, already plain values)."""
    arguments = {key: value for key, value in node.items() if not key.startswith("_")}
    module, _, name = str(node["_target_"]).rpartition(".")
    target = getattr(import_module(module), name)
    parameters = signature(target).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key in arguments:
        if key not in parameters and not open_ended:
            raise unknown(f"key of {what}", key, parameters)
    return target(**arguments)


def plan_pools(config: Mapping[str, Any], hash_block: int, measured: bool) -> list[PoolPlan]:
    """All pools of a run, with the services its program calls added. `measured`: torch sizes its own memory."""
    pools = config["pools"] or {"default": config["pool"]}
    pools = dict(pools)
    served = {pool.get("kind", "generate") for pool in pools.values()}
    for kind in CALLS.get(str(config["workload"].get("program", "chat")), ()):
        if kind not in served:
            pools[kind] = config["services"][kind]
    return [_plan(name, pool, config, hash_block, measured) for name, pool in pools.items()]


def _plan(name: str, pool: Mapping[str, Any], config: Mapping[str, Any], hash_block: int, measured: bool) -> PoolPlan:
    for key in pool:
        if key not in KEYS:
            raise unknown(f"key of pool '{name}'", str(key), KEYS)
    kind = pool.get("kind", "generate")
    if kind not in KINDS:
        raise unknown("kind of pool", str(kind), KINDS)
    server = _server(name, pool.get("server") or {}, config["server"])
    model = _part(config, pool, "model") if kind != "search" else None
    accelerator, serving = _part(config, pool, "accelerator"), instantiate(config["serving"], "serving")
    tp = pool.get("tp", 1)
    precision = config["backend"]["precision"] if measured else config["precision"]
    blocks = server["kv_blocks"] or 0
    if kind == "generate" and model is not None and not measured:
        room = kv_blocks(
            model, accelerator, serving, config["precision"], tp, server["block_size"],
            server["gpu_memory_utilization"], server["max_num_batched_tokens"],
        )  # fmt: skip
        blocks = blocks or room
    deployment = Deployment(
        name, kind, model, accelerator, serving, precision, pool.get("replicas", 1), tp,
        server["block_size"], blocks, server["max_num_seqs"], server["max_num_batched_tokens"],
        server["prefix_caching"], hash_block, dict(pool.get("service") or {}),
    )  # fmt: skip
    return PoolPlan(deployment, server, _policies(name, pool.get("policy") or {}, config))


def _server(name: str, own: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    for key in own:
        if key not in common:
            raise unknown(f"server key of pool '{name}'", str(key), common)
    server = {**common, **own}
    check_server(server)
    return server


def _part(config: Mapping[str, Any], pool: Mapping[str, Any], group: str) -> Any:
    """The model or accelerator of a pool: a name of the group, or the one of the run."""
    chosen = pool.get(group)
    node = config[group] if chosen is None else group_node(group, str(chosen), config["seed"])
    return instantiate(node, group)


def _policies(name: str, own: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    common = config["policy"]
    for kind in own:
        if kind not in common:
            raise unknown(f"policy kind of pool '{name}'", str(kind), common)
    return {kind: policy_node(kind, own.get(kind), node, config["seed"]) for kind, node in common.items()}

"""From the config of a run to its deployments: what each pool runs, on what, under which policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from airi_sim.core.errors import BadInput, unknown
from airi_sim.hardware.cost import kv_blocks
from airi_sim.hardware.deployment import Deployment
from airi_sim.hardware.service import SERVICES
from airi_sim.hardware.storage import block_bytes
from airi_sim.workbench.objects import instantiate
from airi_sim.workbench.plugins import group_node, policy_node
from airi_sim.workbench.schema import POOL, SERVICE, check_rules, check_section, check_server, defaults
from airi_sim.workbench.speculation import draft_model, speculating, speculation_of
from airi_sim.workload.programs import CALLS

KINDS = ("generate", *SERVICES)


@dataclass(frozen=True)
class PoolPlan:
    """One pool: its deployment, the limits of its servers, and the config nodes of its policies."""

    deployment: Deployment
    server: dict[str, Any]
    policies: dict[str, Mapping[str, Any]]
    role: str = "both"
    room: int = 0
    """KV blocks that the memory of the accelerator leaves; 0 where that is not known."""

    @property
    def warnings(self) -> list[str]:
        """What one should doubt about it."""
        blocks = self.deployment.kv_blocks
        if not 0 < self.room < blocks:
            return []
        return [f"pool '{self.deployment.name}' has {blocks:,} KV blocks, but its memory leaves {self.room:,}."]


def plan_pools(config: Mapping[str, Any], hash_block: int, measured: bool) -> list[PoolPlan]:
    """All pools of a run, with the services its program calls added. `measured`: torch sizes its own memory."""
    return [_plan(key, pool, config, hash_block, measured) for key, pool in copied(pools_of(config)).items()]


def copied(pools: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The pools, each that has `copies` as so many: NAME-0, NAME-1, ... with models of the same names."""
    found: dict[str, Mapping[str, Any]] = {}
    for key, pool in pools.items():
        names = [f"{key}-{i}" for i in range(pool["copies"])] if pool.get("copies") else [key]
        for name in names:
            if name in found or (name != key and name in pools):
                raise BadInput(f"{key}.copies makes a pool '{name}' that is there already: rename one of them.")
            found[name] = pool
    return found


def pools_of(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The pools of a config by the key they stand at, checked."""
    pools = {f"pools.{name}": pool for name, pool in (config["pools"] or {}).items()} or {"pool": config["pool"]}
    served = [_kind(key, pool) for key, pool in pools.items()]
    if "generate" not in served:
        raise BadInput(f"no pool generates: one of {', '.join(pools)} must be of kind generate.")
    for kind in CALLS.get(str(config["workload"].get("program", "chat")), ()):
        if kind in served:
            continue
        if f"pools.{kind}" in pools:
            raise BadInput(
                f"the program calls a service '{kind}', but pools.{kind} is another kind of pool: rename it."
            )
        pools[f"services.{kind}"] = config["services"].get(kind)
        _kind(f"services.{kind}", pools[f"services.{kind}"])
    return pools


def unread(config: Mapping[str, Any]) -> list[str]:
    """One sentence for each key of the shorthand `pool` that was set although `pools` names pools."""
    usual = defaults()["pool"]
    given = [key for key, value in config["pool"].items() if config["pools"] and value != usual.get(key)]
    return [f"pool.{key} is not read where pools are named: set pools.NAME.{key}." for key in given]


def _kind(key: str, pool: Any) -> str:
    """The kind of a pool whose keys have been checked."""
    check_rules(key, pool, POOL)
    check_rules(f"{key}.service", pool.get("service") or {}, SERVICE)
    kind = str(pool.get("kind", "generate"))
    if kind not in KINDS:
        raise unknown(f"{key}.kind", kind, KINDS)
    return kind


def _plan(key: str, pool: Mapping[str, Any], config: Mapping[str, Any], hash_block: int, measured: bool) -> PoolPlan:
    name = key.partition(".")[2] or "default"
    kind = pool.get("kind", "generate")
    server = {**config["server"], **(pool.get("server") or {})}
    check_server(f"{key}.server" if pool.get("server") else "server", server)
    model = _part(config, pool, "model") if kind not in SERVICES or SERVICES[kind].model else None
    accelerator, serving = _accelerator(config, pool), instantiate(config["serving"], "serving")
    tp = pool.get("tp", 1)
    if pool.get("copies") and model is not None:
        model = replace(model, name=name)
    precision = config["backend"]["precision"] if measured else config["precision"]
    blocks, room = server["kv_blocks"] or 0, 0
    speculation = speculation_of(server, f"{key}.server" if pool.get("server") else "server", config["seed"])
    if kind == "generate" and model is not None and not measured:
        room = kv_blocks(
            model, accelerator, serving, config["precision"], tp, server["block_size"],
            server["gpu_memory_utilization"], server["max_num_batched_tokens"], draft_model(speculation),
        )  # fmt: skip
        blocks = blocks or room
    deployment = Deployment(
        name, kind, model, accelerator, serving, precision, pool.get("replicas", 1), tp,
        server["block_size"], blocks, server["max_num_seqs"], server["max_num_batched_tokens"],
        server["prefix_caching"], hash_block, dict(pool.get("service") or {}), devices=_devices(pool.get("device")),
        family=name.rpartition("-")[0] if pool.get("copies") else "",
    )  # fmt: skip
    if server["swap_bytes"] or server["copy_on_write"]:
        deployment = _copying(deployment, server)
    deployment = speculating(deployment, speculation, pool.get("role", "both"))
    policies = _policies(key, pool.get("policy") or {}, config)
    return PoolPlan(deployment, server, policies, pool.get("role", "both"), room)


def _copying(deployment: Deployment, server: Mapping[str, Any]) -> Deployment:
    """A generate pool whose servers copy KV blocks; BadInput if not one of them fits into its share of the host."""
    if deployment.kind != "generate" or deployment.model is None:
        return deployment
    size = block_bytes(deployment)
    blocks = int(server["swap_bytes"] // size)
    if server["swap_bytes"] and not blocks:
        raise BadInput(
            f"server.swap_bytes={server['swap_bytes']} holds no KV block of pool '{deployment.name}', which takes "
            f"{size:.0f} bytes: give it more, or 0 to compute again."
        )
    return replace(deployment, swap_blocks=blocks, copy_on_write=server["copy_on_write"])


def _devices(named: str | Sequence[str] | None) -> tuple[str, ...]:
    return (named,) if isinstance(named, str) else tuple(named or ())


def _accelerator(config: Mapping[str, Any], pool: Mapping[str, Any]) -> Any:
    """The accelerator of a pool, in the node that the pool names instead of its usual one."""
    accelerator, chosen = _part(config, pool, "accelerator"), pool.get("node")
    if chosen is None:
        return accelerator
    node = instantiate(group_node("node", chosen, config["seed"]) if isinstance(chosen, str) else chosen, "pool.node")
    return replace(accelerator, node=node)


def _part(config: Mapping[str, Any], pool: Mapping[str, Any], group: str) -> Any:
    """The model or accelerator of a pool: a name of the group, or the one of the run."""
    chosen = pool.get(group)
    node = group_node(group, chosen, config["seed"]) if isinstance(chosen, str) else chosen or config[group]
    return instantiate(node, group)


def _policies(key: str, own: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    common = config["policy"]
    check_section(f"{key}.policy", own, common)
    return {kind: policy_node(kind, own.get(kind), node, config["seed"]) for kind, node in common.items()}

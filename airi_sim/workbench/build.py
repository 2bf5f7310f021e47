"""The only place where configuration becomes objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from airi_sim.core.errors import BadInput, unknown
from airi_sim.core.log import Log
from airi_sim.core.types import FOREVER, Request
from airi_sim.engine.backends import Backend, SimBackend, server_name
from airi_sim.engine.driver import Driver
from airi_sim.engine.turns import TurnsDriver
from airi_sim.hardware.service import SERVICES
from airi_sim.hardware.serving import BARE, Serving
from airi_sim.runtime.pool import Pool
from airi_sim.runtime.runtime import Runtime
from airi_sim.runtime.speculation import SpeculativeServer
from airi_sim.runtime.swap import CopyingServer
from airi_sim.runtime.token_server import TokenServer
from airi_sim.runtime.view import Board
from airi_sim.workbench.objects import instantiate
from airi_sim.workbench.oracles import reveal_truth
from airi_sim.workbench.paths import options
from airi_sim.workbench.plugins import maker
from airi_sim.workbench.pools import PoolPlan, plan_pools, unread
from airi_sim.workbench.residence import settle
from airi_sim.workbench.schema import KEYS, check_key
from airi_sim.workbench.services import service_maker
from airi_sim.workbench.speculation import draft_model
from airi_sim.workbench.wiring import level, wire
from airi_sim.workload.programs import CHUNK, program, reading
from airi_sim.workload.script import LengthScript
from airi_sim.workload.tenants import Labelled, zipf
from airi_sim.workload.tenants import build as label


@dataclass
class World:
    """Everything one run needs, ready to go."""

    workload: Any
    runtime: Runtime
    driver: Any
    log: Log
    backend: Backend
    plans: list[PoolPlan]
    warnings: list[str] = field(default_factory=list)

    @property
    def generate(self) -> PoolPlan:
        """The first pool that generates."""
        return next(plan for plan in self.plans if plan.deployment.kind == "generate")


class Programs(dict[str, Any]):
    """Programs by name; anybody's function is looked up as module.function."""

    def __init__(self, chunk_tokens: int) -> None:
        super().__init__(reading(chunk_tokens))

    def __missing__(self, name: str) -> Any:
        self[name] = found = program(name)
        return found


def build(config: Mapping[str, Any], backend: Backend | None = None, progress: Any = None) -> World:
    """The world of a plain, checked config (workbench.config). `backend` replaces the one the config names."""
    workload, concurrency = build_workload(config)
    backend = backend or build_backend(config)
    log = Log()
    plans = sized_pools(config, workload.hash_block, backend)
    check_weights(config["backend"].get("weights") or (), plans)
    pools = [_pool(plan, config, log, backend, _first(plans, i)) for i, plan in enumerate(plans)]
    workload = label_models(workload, config["workload"].get("models"), plans, config["seed"])
    wiring = wire(plans, config["transfer"], log)
    policy = config["policy"]
    api = [_edges(plan, backend).api_s for plan in plans if plan.deployment.kind == "generate"]
    model_router = maker("model_router", policy["model_router"])()
    check_model_router(model_router, [pool.name for pool in pools])
    script = LengthScript(workload.hash_block, config["seed"])
    executors: list[Any] = [
        backend.executor(plan.deployment, i, script) for plan in plans for i in range(plan.deployment.replicas)
    ]
    if wiring:
        pools, executors = [*pools, wiring.pool], [*executors, wiring.executor]
    shared = settle(plans, pools, config, log, backend, script)
    make_runtime: Callable[..., Runtime] = shared.runtime if shared else Runtime
    runtime = make_runtime(
        shared.pools if shared else pools,
        log,
        link=wiring.link if wiring else None,
        kv_bytes=wiring.kv_bytes if wiring else None,
        admission=maker("admission", policy["admission"])(),
        model_router=model_router,
        faults=maker("fault", policy["fault"])(),
        programs=Programs(chunk_tokens(plans)),
        concurrency=concurrency,
        request_s=max(api, default=0.0),
    )
    runtime.forget = _forgetters(script, backend)
    executors += shared.executors if shared else []
    make_driver = getattr(backend, "driver", None) or (partial(TurnsDriver, devices=shared.turns) if shared else Driver)
    driver = make_driver(runtime, executors, learn=script.learn, progress=progress)
    warnings = [text for plan in plans for text in plan.warnings] + reveal_truth(runtime, script)
    warnings += [*(wiring.warnings if wiring else ()), *_unlike(api), *unread(config)]
    return World(workload, runtime, driver, log, backend, plans, warnings)


def _edges(plan: PoolPlan, backend: Backend) -> Serving:
    """The serving engine of a pool as it is on its accelerator, where the backend simulates what it does before and
    between passes: not where the passes were measured on a device, for `serving` is not what ran there."""
    device, serving = plan.deployment.accelerator, plan.deployment.serving
    measured = getattr(device, "profile", None) is not None
    if serving is None or measured or not getattr(backend, "edges", False):
        return BARE
    there: Serving = serving.placed(device)[0]
    return there


def _unlike(api: list[float]) -> list[str]:
    """A warning if calls take the API path of a pool that they do not go to: they take it before a pool is chosen."""
    if len(set(api)) < 2:
        return []
    each = ", ".join([f"{seconds * 1e3:g}" for seconds in api])
    return [f"the API paths of the pools take {each} ms, and every call takes the longest: its pool is chosen later."]


def check_model_router(model_router: Any, pools: list[str]) -> None:
    """BadInput if it names a pool that does not exist."""
    named = getattr(model_router, "pool", None)
    if isinstance(named, str) and named not in pools:
        raise unknown("pool of policy.model_router", named, pools)


def chunk_tokens(plans: list[PoolPlan]) -> int:
    """Tokens of a chunk that a search finds, of the first search pool that says so: a prompt has room for what comes,
    else chunks would overwrite the question before them."""
    found = [(plan.deployment.service or {}).get("chunk_tokens") for plan in plans if plan.deployment.kind == "search"]
    return next((tokens for tokens in found if tokens), CHUNK)


def check_weights(named: Iterable[str], plans: list[PoolPlan]) -> None:
    """BadInput if weights are given to a model that no pool has: the one that was meant would get random ones."""
    pools = [plan.deployment for plan in plans]
    models = [model for pool in pools for model in (pool.model, draft_model(pool.speculation)) if model is not None]
    known = {model.name for model in models} | {pool.family for pool in pools if pool.family}
    for name in named:
        if name not in known:
            raise unknown("model of backend.weights", name, sorted(known))


def build_workload(config: Mapping[str, Any]) -> tuple[Any, int | None]:
    """The workload with its tenants, and how many requests may be in flight."""
    node = dict(config["workload"])
    tenants, concurrency = node.pop("tenants", None), node.pop("concurrency", None)
    node.pop("models", None)  # a label, too, but of what the pools serve: see build
    return label(instantiate(node, "workload"), tenants, config["seed"]), concurrency


def label_models(workload: Any, models: Any, plans: list[PoolPlan], seed: int) -> Any:
    """The workload, its requests divided among the models of the pools: with these weights, or by Zipf's law."""
    if models is None:
        return workload
    check_key("workload.models", models, KEYS["workload.models"])
    generating = [plan.deployment.model for plan in plans if plan.deployment.kind == "generate"]
    served = list(dict.fromkeys([model.name for model in generating if model is not None]))
    weights = models if isinstance(models, Mapping) else zipf(served, models)
    for name in weights:
        if name not in served:
            raise unknown("model in workload.models", str(name), served)
    return Labelled(workload, weights, seed, "model")


def build_backend(config: Mapping[str, Any]) -> Backend:
    """The backend the config names; torch is reached only through its `_target_`."""
    node = dict(config["backend"])
    name = node.pop("name", None)
    if name == "sim" and not node:
        return SimBackend()
    if "_target_" not in node:
        raise unknown("backend", str(name), options("backend"))
    try:
        return instantiate(node, "backend")
    except BadInput as error:
        if not isinstance(error.__cause__, ModuleNotFoundError) or error.__cause__.name != "torch":
            raise
        raise BadInput(
            "backend=torch needs PyTorch, which is not installed: pip install 'airi-sim[real]' brings it."
        ) from error


def sized_pools(config: Mapping[str, Any], hash_block: int, backend: Backend) -> list[PoolPlan]:
    """The pools of a config with the memory they get on `backend`."""
    measured = backend.source == "torch"
    plans = level(plan_pools(config, hash_block, measured), measured)
    return [_sized(plan, backend) for plan in plans] if measured else plans


def _forgetters(script: LengthScript, backend: Any) -> Callable[[Request], None]:
    """Whatever remembers a request lets go of it when it ends."""
    release = getattr(backend, "forget", None)
    if release is None:
        return script.forget

    def forget(request: Request) -> None:
        script.forget(request)
        release(request)

    return forget


def _sized(plan: PoolPlan, backend: Any) -> PoolPlan:
    """torch knows its own memory: the number of KV blocks comes from there unless it is given."""
    deployment = plan.deployment
    if deployment.kind != "generate" or deployment.kv_blocks:
        return plan
    return replace(plan, deployment=replace(deployment, kv_blocks=backend.default_kv_blocks(deployment)))


def _first(plans: list[PoolPlan], upto: int) -> int:
    return sum(plan.deployment.replicas for plan in plans[:upto])


def _pool(plan: PoolPlan, config: Mapping[str, Any], log: Log, backend: Backend, first: int) -> Pool:
    deployment = plan.deployment
    make = _maker_of(plan, config, log, backend)
    servers = [make(server_name(deployment.name, i), first + i) for i in range(deployment.replicas)]
    ids = deployment.kv_blocks * deployment.block_size // deployment.hash_block
    board = Board(servers, config["view"]["period_s"], ids)
    board.hash_block = deployment.hash_block
    model = deployment.model.name if deployment.kind == "generate" and deployment.model is not None else ""
    router = maker("router", plan.policies["router"])()
    return Pool(deployment.name, deployment.kind, model, servers, router, board, role=plan.role)


def _maker_of(plan: PoolPlan, config: Mapping[str, Any], log: Log, backend: Backend) -> Callable[[str, int], Any]:
    """How the servers of a pool are made: by its kind."""
    d, limits = plan.deployment, plan.server
    if d.kind in SERVICES:
        return service_maker(plan, config["seed"], log)
    queue, batcher = (maker(kind, plan.policies[kind]) for kind in ("queue", "batcher"))
    evictor, cache = (maker(kind, plan.policies[kind]) for kind in ("evictor", "cache"))
    longest = limits["max_model_len"] or (d.model.max_len if d.model is not None else 0) or FOREVER
    server: Callable[..., TokenServer] = TokenServer
    if d.copies:
        server = partial(CopyingServer, host_blocks=d.swap_blocks, copy_on_write=d.copy_on_write)
    if d.speculation is not None:
        server = partial(SpeculativeServer, lookahead=d.speculation.tokens)
    return lambda name, index: server(
        name, index, queue, batcher(), evictor(), log, blocks=d.kv_blocks, block=d.block_size, seats=d.max_num_seqs,
        limit=d.max_num_batched_tokens, max_len=longest, chunked=limits["chunked_prefill"], caching=d.prefix_caching,
        hash_block=d.hash_block, fast=config["engine"]["fast_forward"], detailed=backend.detailed,
        make_cache=cache,
        ahead=_edges(plan, backend).ahead,
    )  # fmt: skip

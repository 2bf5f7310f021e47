"""How the servers of service pools are made."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from airi_sim.core.log import Log
from airi_sim.hardware.service import SERVICES
from airi_sim.runtime.features import ENTRIES, KEYS, SKEW, FeatureCache, FeatureServer, Popularity
from airi_sim.runtime.service import BatchServer, SlotServer
from airi_sim.workbench.plugins import maker
from airi_sim.workbench.pools import PoolPlan


def service_maker(plan: PoolPlan, seed: int, log: Log) -> Callable[[str, int], Any]:
    """What makes the servers of a service pool, by its kind."""
    d, queue = plan.deployment, maker("queue", plan.policies["queue"])
    if SERVICES[d.kind].batched:
        batcher = maker("batcher", plan.policies["batcher"])
        return lambda name, index: BatchServer(
            name, index, queue, batcher(), log, seats=d.max_num_seqs, limit=d.max_num_batched_tokens
        )
    if d.kind == "features":
        return _feature_maker(plan, seed, log)
    return lambda name, index: SlotServer(name, index, queue, log, depth=d.max_num_seqs)


def _feature_maker(plan: PoolPlan, seed: int, log: Log) -> Callable[[str, int], FeatureServer]:
    d, service = plan.deployment, plan.deployment.service or {}
    queue, policy = maker("queue", plan.policies["queue"]), maker("cache", plan.policies["cache"])
    keys = Popularity(service.get("keys", KEYS), service.get("skew", SKEW), seed)

    def make(name: str, index: int) -> FeatureServer:
        cache = FeatureCache(service.get("cache_entries", ENTRIES), service.get("cache_ttl_s") or inf, policy)
        return FeatureServer(name, index, queue, log, cache=cache, keys=keys, depth=d.max_num_seqs)

    return make

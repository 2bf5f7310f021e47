"""What one should doubt about a simulated run: passes outside what was measured, and how far its times may be off."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan
from typing import Any

from airi_sim.core.errors import BadInput
from airi_sim.engine.backends import SimBackend
from airi_sim.results.columns import Columns
from airi_sim.workbench.build import World


def doubted(world: World, summary: dict[str, Any], tables: Mapping[str, Any], strict: bool) -> dict[str, Any]:
    """The summary with `provenance.coverage`, `interval`, and a warning where passes were extrapolated; `tables`
    are those of the run. A measured run stays as it is. With `strict` BadInput instead of a warning."""
    if not isinstance(world.backend, SimBackend):
        return summary
    from airi_sim.hardware.coverage import Coverage, coverage

    pools = pools_of(world, Columns("plans", tables["plans"]))
    whole = Coverage()
    for deployment, passes in pools:
        whole.add(coverage(deployment, passes))
    sentences = whole.sentences()
    if strict and sentences:
        raise BadInput(
            f"hardware.strict=true: {sentences[0]} Calibrate with timings that reach so far (airi calibrate), or set "
            "hardware.strict=false to extrapolate."
        )
    provenance = dict(summary["provenance"])
    provenance |= {"coverage": whole.plain(), "warnings": [*provenance["warnings"], *sentences]}
    return summary | {
        "interval": intervals(pools, summary, Columns("requests", tables["requests"])),
        "provenance": provenance,
    }


def intervals(pools: list[Any], summary: Mapping[str, Any], requests: Columns) -> dict[str, Any]:
    """`relative`: standard deviation of the time of passes (of the pool with the largest); the metrics beside it."""
    from airi_sim.hardware.confidence import interval, spread

    spreads = [value for pool in pools if not isnan(value := spread(*pool))]
    if not spreads:
        return {"level": 0.9, "relative": None}
    servers = summary["utilization"].get("servers") or {}
    load = max((one["busy"] or 0.0 for one in servers.values()), default=0.0)
    drain = 1 - float(requests.floats("arrival_s").max(initial=0.0)) / (summary["duration_s"] or 1.0)
    return {"level": 0.9, "relative": max(spreads)} | interval(summary, max(spreads), load, drain)


def pools_of(world: World, plans: Columns) -> list[Any]:
    """(deployment, passes) of every pool that generates."""
    import numpy as np

    from airi_sim.hardware.coverage import Passes

    names, server = plans.servers()
    computing = plans.texts("kind") == "pass"
    passes, decodes, context, prompt = map(plans.ints, ("passes", "decodes", "context_tokens", "prefill_tokens"))
    whole = Passes(passes, decodes, context, prompt, plans.floats("end_s") - plans.floats("start_s"))
    found = []
    for plan in world.plans:
        if plan.deployment.kind == "generate":
            mine = [i for i, name in enumerate(names) if name.rpartition("/")[0] == plan.deployment.name]
            found.append((plan.deployment, whole.take(np.flatnonzero(np.isin(server, mine) & computing))))
    return found

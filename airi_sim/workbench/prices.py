"""What holding and using each server costs: from the figures of its accelerators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airi_sim.engine.backends import server_name
from airi_sim.hardware.deployment import Deployment
from airi_sim.hardware.power import work
from airi_sim.workbench.build import World

FIGURES = {"usd_per_hour": "usd_per_hour", "idle_watts": "idle_w", "busy_watts": "tdp_w"}


def prices_of(world: World, building: Mapping[str, Any]) -> dict[str, dict[str, Any]] | None:
    """The price list of each server of a simulated run (see results.cost); None for a measured one: it did not run on
    the accelerator of the config."""
    if world.backend.source != "sim":
        return None
    common = {name: value for name, value in building.items() if value is not None}
    return {
        server_name(plan.deployment.name, i): {**common, **price_of(plan.deployment), **work(plan.deployment)}
        for plan in world.plans
        for i in range(plan.deployment.replicas)
    }


def price_of(deployment: Deployment) -> dict[str, float]:
    """The figures of one replica, that is of `tp` accelerators; a figure of 0 is one that nobody knows."""
    known = {price: getattr(deployment.accelerator, figure, 0.0) for price, figure in FIGURES.items()}
    return {price: figure * deployment.tp for price, figure in known.items() if figure}

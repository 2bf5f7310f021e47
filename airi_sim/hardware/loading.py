"""How long it takes to bring a model to a device, or to take it away: the plans of a loader."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from airi_sim.core.protocols import CostModel
from airi_sim.core.types import Affine, Plan
from airi_sim.hardware.deployment import Deployment
from airi_sim.hardware.fitted import service_from
from airi_sim.hardware.network import node_around
from airi_sim.hardware.storage import load


def load_cost(deployment: Deployment) -> CostModel:
    """The cost of a loader: measured if its accelerator comes from a calibration profile, else over its links."""
    profile = getattr(deployment.accelerator, "profile", None)
    return LinkLoads(deployment) if profile is None else MeasuredLoads(profile)


def section(kind: str, tier: str) -> str:
    """The section of a profile for loads from a tier, or for unloads."""
    return f"load_{tier}" if kind == "load" else kind


class LinkLoads:
    """Weights over the links of the node, then `init_s` seconds until the engine serves (hardware.storage.load). To
    take a model away takes no time: memory is given back, nothing is moved."""

    def __init__(self, deployment: Deployment) -> None:
        self.node = node_around(deployment.accelerator)
        self.init_s = (deployment.service or {}).get("init_s", 0.0)
        self.notes: tuple[str, ...] = ()

    def affine(self, plan: Plan) -> Affine:
        job: Any = plan.slices[0][0]
        if plan.kind != "load":
            return Affine(0.0)
        return Affine(load(job.tokens, self.node, job.tier, job.spot.accelerators, self.init_s).seconds)


class MeasuredLoads:
    """By the sections of a calibration profile for loads and unloads. BadInput when one that is needed is missing."""

    def __init__(self, profile: Mapping[str, Any]) -> None:
        self.cost = cache(lambda name: service_from(profile, name))
        self.notes: tuple[str, ...] = ()

    def affine(self, plan: Plan) -> Affine:
        cost: CostModel = self.cost(section(plan.kind, plan.slices[0][0].tier))
        return cost.affine(plan)

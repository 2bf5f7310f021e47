"""Which cost model a pool gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import CostModel
from airi_sim.hardware.cost import PhysicsCost
from airi_sim.hardware.deployment import Deployment
from airi_sim.hardware.fitted import FittedCost, service_from
from airi_sim.hardware.loading import load_cost
from airi_sim.hardware.service import ServiceCost, constants_of, many
from airi_sim.hardware.speculation import speculative_cost
from airi_sim.hardware.unmeasured import UNMEASURED


def cost_model(deployment: Deployment) -> CostModel:
    """Measured if the accelerator comes from a calibration profile, else physics; services may have constants.

    Without either, services that read texts cost a prefill of their model; a search pool costs what a query reads of
    its index from memory; images cost the operations and weights of the vision tower; feature look-ups what they took
    on one machine. BadInput when a pool has nothing to be costed from.
    """
    if deployment.kind == "load":
        return load_cost(deployment)
    kind, profile = deployment.kind, deployment.accelerator.profile if deployment.accelerator is not None else None
    constants = constants_of(deployment.service or {})
    if kind != "generate" and constants:
        return ServiceCost(**constants, many=many(kind))
    if deployment.speculation is not None:
        return speculative_cost(deployment, cost_model)
    if profile is not None:
        return _measured(deployment, profile)
    return UNMEASURED.get(kind, PhysicsCost)(deployment)


def _measured(deployment: Deployment, profile: Mapping[str, Any]) -> CostModel:
    if deployment.kind != "generate":
        return service_from(profile, deployment.kind)
    wanted = {"precision": deployment.precision, "block_size": deployment.block_size}
    if deployment.model is not None:
        wanted["model"] = deployment.likeness
    for key, value in wanted.items():
        if profile[key] != value:
            raise BadInput(
                f"the calibration profile was measured with {key} {profile[key]}, but pool '{deployment.name}' has "
                f"{value}: calibrate again with it, or set it to {profile[key]}."
            )
    return FittedCost(profile)

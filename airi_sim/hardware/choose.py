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
from airi_sim.hardware.service import SERVICE, ServiceCost
from airi_sim.hardware.speculation import speculative_cost


def cost_model(deployment: Deployment) -> CostModel:
    """Measured if the accelerator comes from a calibration profile, else physics; services have constants.

    An embed pool without constants costs a prefill of its model; a search pool without constants a scan of its index
    (`vectors` x `width` floats) from memory, per query. BadInput when a pool has nothing to be costed from.
    """
    if deployment.kind == "load":
        return load_cost(deployment)
    constants = {name: value for name, value in (deployment.service or {}).items() if name in SERVICE and value}
    profile = deployment.accelerator.profile if deployment.accelerator is not None else None
    if deployment.kind != "generate" and constants:
        return ServiceCost(**constants)
    if deployment.speculation is not None:
        return speculative_cost(deployment, cost_model)
    if profile is not None:
        return _measured(deployment, profile)
    if deployment.kind == "search":
        return _scan(deployment)
    return PhysicsCost(deployment)


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


def _scan(deployment: Deployment) -> ServiceCost:
    service, device = deployment.service or {}, deployment.accelerator
    numbers = service.get("vectors", 0) * service.get("width", 0)
    if not numbers or device is None:
        raise BadInput(
            f"search pool '{deployment.name}' needs constant, per_token or per_item in seconds, "
            "or an accelerator with vectors and width of its index."
        )
    return ServiceCost(constant=device.gemm_s, per_item=4 * numbers / (device.bandwidth * device.e_m))

"""What services cost where neither constants nor a calibration profile say: from the accelerator and what they read."""

from __future__ import annotations

from collections.abc import Callable

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import CostModel
from airi_sim.core.types import Affine, Plan
from airi_sim.hardware.deployment import Deployment
from airi_sim.hardware.service import ServiceCost, index_shape
from airi_sim.models.precision import width

LOOK_UP = ServiceCost(constant=2e-5, per_token=5.5e-6, per_cached=6e-7)
"""A look-up in SQLite in memory: a call, a key read, a key found in the cache (one AVX2 core; docs/services.md says how
that was measured). It runs on the host, whatever the accelerator is."""
OPERATORS = 8
"""Kernels of a layer of a vision tower, launched one by one."""


def scan(deployment: Deployment) -> ServiceCost:
    """A query reads its vectors from memory once, one kernel for a flat index, one for each list otherwise."""
    device, shape = deployment.accelerator, index_shape(deployment.service or {}, deployment.name)
    if shape is None or device is None:
        raise BadInput(
            f"search pool '{deployment.name}' needs constant, per_token or per_item in seconds, "
            "or an accelerator with vectors and width of its index."
        )
    seconds = 4 * shape.read * shape.width / (device.bandwidth * device.e_m)
    return ServiceCost(constant=(1 + shape.nprobe) * device.gemm_s, per_item=seconds)


class TowerCost:
    """Images through a vision tower: its operations, or reading its weights once a batch if that takes longer."""

    __slots__ = ("flops", "launch_s", "notes", "tower", "weights_s")

    def __init__(self, deployment: Deployment) -> None:
        model, device = deployment.model, deployment.accelerator
        tower = model.vision if model is not None else None
        if tower is None or device is None:
            raise BadInput(
                f"vision pool '{deployment.name}' needs a model with a vision tower and an accelerator, or constant, "
                "per_token or per_item in seconds."
            )
        self.tower = tower
        self.flops = device.peak(deployment.precision) * device.e_c
        self.weights_s = tower.parameters * width(deployment.precision) / (device.bandwidth * device.e_m)
        self.launch_s = device.gemm_s * OPERATORS * tower.layers
        self.notes: tuple[str, ...] = ()

    def affine(self, plan: Plan) -> Affine:
        """The tokens of a call are those that its `items` images become, evenly."""
        merge = self.tower.merge**2
        flops = sum([job.items * self.tower.flops(round(merge * tokens / job.items)) for job, tokens in plan.slices])
        return Affine(self.launch_s + max(self.weights_s, flops / self.flops))


UNMEASURED: dict[str, Callable[[Deployment], CostModel]] = {
    "search": scan,
    "features": lambda _: LOOK_UP,
    "vision": TowerCost,
}
"""By kind; kinds that are not here read texts, which costs a prefill of their model."""

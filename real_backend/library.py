"""The models of one device and the memory they share."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from airi_sim.core.errors import BadInput, unknown
from airi_sim.hardware.deployment import Deployment
from airi_sim.models.spec import ModelSpec
from real_backend import model as models
from real_backend import weights as stored
from real_backend.attention import choose
from real_backend.kv import PagedKV, block_bytes
from real_backend.runner import Runner

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
DEVICES = ("auto", "cpu", "cuda")
CPU_KV_BYTES = 1 << 29
SCRATCH_BYTES = 1 << 28  # well above any cache, so that calibration reads memory as a run does
FREE_SHARE = 0.8


class Library:
    """Loads each model once on a device and shares it among replicas.

    `weights` names a safetensors file or folder by model; models not named get random weights from `seed`. `attention`
    names the backend of attention.choose; `images` is what runners look image tokens up with.
    """

    def __init__(
        self,
        device: str,
        precision: str,
        seed: int,
        weights: Mapping[str, str] | None = None,
        attention: str = "auto",
    ) -> None:
        self.device = torch.device(pick_device(device))
        if precision not in PRECISIONS:
            raise unknown("backend.precision", precision, PRECISIONS)
        self.precision, self.dtype = precision, PRECISIONS[precision]
        self.seed = seed
        self.weights = dict(weights or {})
        self.attention = choose(attention, self.device, self.dtype)
        self.images: Callable[[models.Model, torch.Tensor], models.Images | None] | None = None
        self._models: dict[ModelSpec, models.Model] = {}

    def spec(self, deployment: Deployment) -> ModelSpec:
        """The model of a pool; BadInput if it has none."""
        if deployment.model is None:
            raise BadInput(f"pool '{deployment.name}' ({deployment.kind}) needs a model: set model=... for it.")
        return deployment.model

    def model(self, deployment: Deployment) -> models.Model:
        """The model of a pool on the device, loaded once."""
        spec = self.spec(deployment)
        if spec not in self._models:
            models.check(spec)
            self._check_memory(spec)
            self._models[spec] = models.build(spec, self.tensors(spec), str(self.device), self.dtype)
        return self._models[spec]

    def tensors(self, spec: ModelSpec) -> dict[str, Tensor]:
        """The weights of a model by their names in stored files, read or drawn anew."""
        path = self.weights.get(spec.name)
        return stored.read(spec, path) if path else stored.draw(spec, self.seed, str(self.device), self.dtype)

    def runner(self, deployment: Deployment, kv_blocks: int, host_blocks: int = 0) -> Runner:
        """The model of a pool with a KV cache of its own: `kv_blocks` on the device, `host_blocks` on the host."""
        if kv_blocks < 1:
            raise BadInput(f"pool '{deployment.name}' has no KV blocks: set server.kv_blocks to 1 or more.")
        model = self.model(deployment)
        memory = PagedKV(model.spec, kv_blocks, deployment.block_size, self.device, self.dtype, host_blocks)
        runner = Runner(model, memory, self.attention[1])
        runner.images = self.images
        return runner

    def default_kv_blocks(self, deployment: Deployment) -> int:
        """KV blocks of one replica when the config names none: its share of free memory, at most what all its seats
        can fill. BadInput if not even one block fits."""
        spec = self.spec(deployment)
        each = block_bytes(spec, deployment.block_size, self.dtype)
        if deployment.speculation is not None:
            each += block_bytes(deployment.speculation.draft, deployment.block_size, self.dtype)
        useful = deployment.max_num_seqs * -(-spec.max_len // deployment.block_size)
        blocks = min(useful, int(self._kv_bytes(spec)) // deployment.replicas // each)
        if blocks < 1:
            raise BadInput(
                f"no memory is left for the KV cache of pool '{deployment.name}': take fewer replicas, a smaller "
                "model, or set server.kv_blocks."
            )
        return blocks

    def scratch_blocks(self, deployment: Deployment, blocks: int) -> int:
        """KV blocks for calibration passes of a pool whose replicas have `blocks`."""
        each = block_bytes(self.spec(deployment), deployment.block_size, self.dtype)
        return min(blocks, max(64, SCRATCH_BYTES // each))

    def device_name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"

    def close(self) -> None:
        """Give the models back."""
        self._models.clear()

    def _check_memory(self, spec: ModelSpec) -> None:
        """BadInput before weights are drawn that the device cannot hold."""
        needed, free = spec.parameters * self.dtype.itemsize, self._free_bytes()
        if needed > free:
            raise BadInput(
                f"'{spec.name}' in {self.precision} needs {needed:.3g} bytes for its weights, but "
                f"'{self.device_name()}' has {free:.3g} bytes free: take a smaller model, such as model=tiny."
            )

    def _free_bytes(self) -> int:
        if self.device.type == "cuda":
            return int(torch.cuda.mem_get_info(self.device)[0])
        return host_bytes()

    def _kv_bytes(self, spec: ModelSpec) -> float:
        free = self._free_bytes()
        if self.device.type == "cuda":
            return FREE_SHARE * (free - spec.parameters * self.dtype.itemsize * (spec not in self._models))
        return min(CPU_KV_BYTES, FREE_SHARE * free)


def host_bytes(known: Path = Path("/proc/meminfo")) -> int:
    """Memory of the host that can be had, what caches of files would give back included; all there is where the system
    does not say (it has no file `known`)."""
    try:
        found = dict(line.split(":") for line in known.read_text().splitlines())
        return int(found["MemAvailable"].split()[0]) << 10
    except (OSError, KeyError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def pick_device(name: str) -> str:
    """`cpu` or `cuda`; BadInput if CUDA is asked for and absent."""
    if name not in DEVICES:
        raise unknown("backend.device", name, DEVICES)
    present = torch.cuda.is_available()
    if name == "cuda" and not present:
        raise BadInput("backend.device=cuda, but torch finds no CUDA device: use backend.device=cpu or auto.")
    return "cuda" if present and name != "cpu" else "cpu"

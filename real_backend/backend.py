"""The torch backend: models, memory and executors on one device, and what was measured there."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from airi_sim.core.errors import BadInput, unknown
from airi_sim.core.protocols import Script
from airi_sim.core.types import Plan, Request
from airi_sim.hardware.deployment import Deployment
from airi_sim.models.spec import ModelSpec
from real_backend import clock as clocks
from real_backend import model as models
from real_backend import weights as stored
from real_backend.calibrate import GenerateProbe, Limits, Probe, ServiceProbe, calibrate
from real_backend.clock import Split, Stopwatch
from real_backend.executor import GenerateWork, TorchExecutor, Work
from real_backend.kv import PagedKV, block_bytes
from real_backend.results import Results
from real_backend.runner import Runner
from real_backend.sequences import Sequences
from real_backend.services import EmbedWork, FlatIndex, SearchWork, embed
from real_backend.wall import WallDriver

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CPU_KV_BYTES = 1 << 29
SCRATCH_BYTES = 1 << 28  # well above any cache, so that calibration reads memory as a run does
FREE_SHARE = 0.8
DEVICES = ("auto", "cpu", "cuda")


class TorchBackend:
    """Makes the executors of a measured run; `conf/backend/torch.yaml` instantiates it.

    device      auto (cuda if there is one), cpu or cuda
    clock       work: plans last as long as the device worked on them; wall: as long as it took, in real time
    precision   fp32, bf16 or fp16, of weights, KV and activations
    weights     safetensors file or folder by name of model; models not named get random weights from `seed`
    cocalibrate take a calibration sample after each measured pass (work clock only: it would delay a wall clock)
    timer       another clock, for tests
    """

    source = "torch"
    detailed = True

    def __init__(
        self,
        device: str = "auto",
        clock: str = "work",
        precision: str = "fp32",
        seed: int = 0,
        cocalibrate: bool = True,
        weights: Mapping[str, str] | None = None,
        timer: clocks.Clock | None = None,
    ) -> None:
        self.device = torch.device(pick_device(device))
        self.timer = timer or clocks.clock(clock, self.device)
        self.clock = clock
        if precision not in PRECISIONS:
            raise unknown("backend.precision", precision, PRECISIONS)
        self.precision, self.dtype = precision, PRECISIONS[precision]
        self.seed = seed
        self.cocalibrate = cocalibrate and clock == "work"
        self.driver = WallDriver if clock == "wall" else None
        self.weights = dict(weights or {})
        self.results = Results()
        self.sequences = Sequences(self.results)
        self._models: dict[ModelSpec, models.Model] = {}
        self._probes: dict[str, tuple[Deployment, Probe]] = {}
        self._indexes: dict[str, FlatIndex] = {}
        self._measured: list[dict[str, Any]] = []
        self._threads = torch.get_num_threads()
        clocks.settle()

    def executor(self, deployment: Deployment, replica: int, script: Script) -> TorchExecutor:
        """The executor of one replica, with memory of its own; weights are shared. Called once for each replica."""
        makers = {"generate": self._generate, "embed": self._embed, "search": self._search}
        if deployment.kind not in makers:
            raise unknown("kind of pool", deployment.kind, makers)
        if deployment.tp > 1:
            raise BadInput(
                f"pool '{deployment.name}' has tp={deployment.tp}, but the torch backend runs a replica on one device: "
                "set pool.tp=1."
            )
        work = makers[deployment.kind](deployment, script)
        probe = self.probe(deployment) if self.cocalibrate else None
        clocks.settle()
        return TorchExecutor(work, self.timer, partial(self._record, deployment, replica), probe)

    def probe(self, deployment: Deployment) -> Probe:
        """What takes the calibration samples of a pool; its replicas share it."""
        if deployment.name not in self._probes:
            makers: dict[str, Callable[[Deployment], Probe]] = {
                "generate": self._generate_probe,
                "embed": self._embed_probe,
                "search": self._search_probe,
            }
            self._probes[deployment.name] = deployment, makers[deployment.kind](deployment)
        return self._probes[deployment.name][1]

    def default_kv_blocks(self, deployment: Deployment) -> int:
        """KV blocks of one replica when the config names none: its share of free memory, at most what all its seats
        can fill. BadInput if not even one block fits."""
        spec = self._spec(deployment)
        each = block_bytes(spec, deployment.block_size, self.dtype)
        useful = deployment.max_num_seqs * -(-spec.max_len // deployment.block_size)
        blocks = min(useful, int(self._kv_bytes(spec)) // deployment.replicas // each)
        if blocks < 1:
            raise BadInput(
                f"no memory is left for the KV cache of pool '{deployment.name}': take fewer replicas, a smaller "
                "model, or set server.kv_blocks."
            )
        return blocks

    def profile(self, pool: str | None = None) -> dict[str, Any]:
        """The hardware profile fitted from the calibration samples of one pool and of all services; without a name, of
        the first pool that generates. BadInput if nothing was sampled."""
        from airi_sim.hardware.fit import profile_from_samples

        deployment = self._profiled(pool)
        samples = {
            other.kind: list(probe.samples)
            for other, probe in self._probes.values()
            if probe.samples and (other.kind != deployment.kind or other is deployment)
        }
        return profile_from_samples(
            samples,
            device=self.device_name(),
            model=deployment.model.name if deployment.model else deployment.name,
            precision=self.precision,
            block_size=deployment.block_size,
        )

    def calibrate(
        self, deployment: Deployment, samples: int, seconds: float, progress: Callable[[int], None] | None = None
    ) -> dict[str, Any]:
        """The profile of a pool from `samples` passes within its limits, in at most `seconds`; services that were
        sampled before are in it too."""
        return calibrate(deployment, self, samples, seconds, progress)

    def measurements(self) -> list[dict[str, Any]]:
        """One row per measured pass, in order: what ran, when, and its seconds by part and by clock."""
        return self._measured

    def drop(self, job: int) -> None:
        """Forget a job (by id) that was cancelled."""
        self.sequences.drop(job)

    def forget(self, request: Request) -> None:
        """Forget everything of a request that is over: called when it ends, however it ends."""
        self.sequences.release(request.id)
        self.results.release(request.id)

    def device_name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"

    def close(self) -> None:
        """Give models and memory back; measurements stay."""
        self._models.clear()
        self._probes.clear()
        self._indexes.clear()
        gc.unfreeze()
        torch.set_num_threads(self._threads)

    # -- the parts of a deployment

    def model(self, deployment: Deployment) -> models.Model:
        """The model of a pool on the device, loaded once."""
        spec = self._spec(deployment)
        if spec not in self._models:
            models.check(spec)
            self._check_memory(spec)
            path = self.weights.get(spec.name)
            device = str(self.device)
            tensors = stored.read(spec, path) if path else stored.draw(spec, self.seed, device, self.dtype)
            self._models[spec] = models.build(spec, tensors, device, self.dtype)
        return self._models[spec]

    def _check_memory(self, spec: ModelSpec) -> None:
        """BadInput before weights are drawn that the device cannot hold."""
        needed, free = spec.parameters * self.dtype.itemsize, self._free_bytes()
        if needed > free:
            raise BadInput(
                f"'{spec.name}' in {self.precision} needs {needed:.3g} bytes for its weights, but "
                f"'{self.device_name()}' has {free:.3g} bytes free: take a smaller model, such as model=tiny."
            )

    def _generate(self, deployment: Deployment, script: Script) -> Work:
        return GenerateWork(self._runner(deployment, deployment.kv_blocks), script, self.sequences)

    def _runner(self, deployment: Deployment, kv_blocks: int) -> Runner:
        if kv_blocks < 1:
            raise BadInput(f"pool '{deployment.name}' has no KV blocks: set server.kv_blocks to 1 or more.")
        model = self.model(deployment)
        return Runner(model, PagedKV(model.spec, kv_blocks, deployment.block_size, self.device, self.dtype))

    def _embed(self, deployment: Deployment, script: Script) -> Work:
        return EmbedWork(self.model(deployment), script, self.results)

    def _search(self, deployment: Deployment, script: Script) -> Work:
        return SearchWork(self._index(deployment), self._service(deployment, "chunk_tokens", 64), self.results)

    def _index(self, deployment: Deployment) -> FlatIndex:
        if deployment.name not in self._indexes:
            vectors, width = self._service(deployment, "vectors", 10000), self._service(deployment, "width", 128)
            self._indexes[deployment.name] = FlatIndex(vectors, width, self.seed, str(self.device))
        return self._indexes[deployment.name]

    def _service(self, deployment: Deployment, key: str, default: int) -> int:
        return int((deployment.service or {}).get(key, default))

    def _spec(self, deployment: Deployment) -> ModelSpec:
        if deployment.model is None:
            raise BadInput(f"pool '{deployment.name}' ({deployment.kind}) needs a model: set model=... for it.")
        return deployment.model

    # -- calibration

    def _generate_probe(self, deployment: Deployment) -> Probe:
        spec = self._spec(deployment)
        blocks = deployment.kv_blocks or self.default_kv_blocks(deployment)
        scratch = min(blocks, max(64, SCRATCH_BYTES // block_bytes(spec, deployment.block_size, self.dtype)))
        longest = min(spec.max_len, blocks * deployment.block_size) - 1
        limits = Limits(deployment.max_num_seqs, longest, deployment.max_num_batched_tokens, blocks)
        return GenerateProbe(self._runner(deployment, scratch), self.timer, limits, self.seed)

    def _embed_probe(self, deployment: Deployment) -> Probe:
        model = self.model(deployment)

        def run(lengths: list[int], watch: Stopwatch) -> None:
            embed(model, [[token % model.spec.vocab for token in range(length)] for length in lengths], watch)

        return ServiceProbe(run, self.timer, self._service_limits(deployment), self.seed)

    def _search_probe(self, deployment: Deployment) -> Probe:
        index = self._index(deployment)

        def run(lengths: list[int], watch: Stopwatch) -> None:
            watch.lap()
            index.search(index.vectors[: len(lengths)], 4)[1].tolist()
            watch.lap()

        return ServiceProbe(run, self.timer, self._service_limits(deployment), self.seed)

    def _service_limits(self, deployment: Deployment) -> Limits:
        longest = deployment.model.max_len if deployment.model else deployment.max_num_batched_tokens
        return Limits(deployment.max_num_seqs, longest, deployment.max_num_batched_tokens)

    def _profiled(self, pool: str | None) -> Deployment:
        sampled = [deployment for deployment, probe in self._probes.values() if probe.samples]
        named = [deployment for deployment in sampled if pool in (None, deployment.name)]
        if not named:
            raise BadInput(
                "no calibration sample was taken" + (f" for pool '{pool}'" if pool else "") + ": run with "
                "backend.cocalibrate=true and backend.clock=work, or use airi calibrate."
            )
        return min(named, key=lambda deployment: deployment.kind != "generate")

    # -- measuring

    def _free_bytes(self) -> int:
        if self.device.type == "cuda":
            return int(torch.cuda.mem_get_info(self.device)[0])
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    def _kv_bytes(self, spec: ModelSpec) -> float:
        free = self._free_bytes()
        if self.device.type == "cuda":
            return FREE_SHARE * (free - spec.parameters * self.dtype.itemsize * (spec not in self._models))
        return min(CPU_KV_BYTES, FREE_SHARE * free)

    def _record(self, deployment: Deployment, replica: int, plan: Plan, now: float, split: Split) -> None:
        row = {
            "pool": deployment.name,
            "replica": replica,
            "server": plan.server,
            "kind": deployment.kind,
            "start_s": now,
            "seconds": split.seconds,
            "slices": len(plan.slices),
        }
        fields = ("sequences", "context", "longest", "prefill_tokens", "prefill_attention", "prefill_context")
        self._measured.append(row | {name: getattr(plan, name) for name in fields} | split._asdict())


def pick_device(name: str) -> str:
    """`cpu` or `cuda`; BadInput if CUDA is asked for and absent."""
    if name not in DEVICES:
        raise unknown("backend.device", name, DEVICES)
    present = torch.cuda.is_available()
    if name == "cuda" and not present:
        raise BadInput("backend.device=cuda, but torch finds no CUDA device: use backend.device=cpu or auto.")
    return "cuda" if present and name != "cpu" else "cpu"

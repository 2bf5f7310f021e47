"""The torch backend: makes the executors of a measured run, and keeps what was measured."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from airi_sim.core.errors import BadInput, unknown
from airi_sim.core.protocols import Executor, Script
from airi_sim.core.types import Plan, Request
from airi_sim.hardware.again import COLUMNS
from airi_sim.hardware.deployment import Deployment
from airi_sim.hardware.speculation import DRAFT
from real_backend import clock as clocks
from real_backend.calibrate import Probe, calibrate
from real_backend.clock import Split
from real_backend.executor import TorchExecutor
from real_backend.fleet import AUTO, Fleet
from real_backend.kinds import KINDS, Parts
from real_backend.library import Library
from real_backend.precision import doubts
from real_backend.results import Results
from real_backend.sequences import Sequences
from real_backend.wall import WallDriver

if TYPE_CHECKING:
    from real_backend.efficiency import Efficiency


class TorchBackend:
    """Makes the executors of a measured run; `conf/backend/torch.yaml` instantiates it.

    device      auto (cuda if there is one), cpu or cuda
    clock       work: plans last as long as the device worked on them; wall: as long as it took, in real time
    precision   fp32, bf16 or fp16, of weights, KV and activations
    weights     safetensors file or folder by name of model; models not named get random weights from `seed`
    attention   auto, sdpa, each, varlen or paged: see attention.BACKENDS
    cocalibrate take a calibration sample after each measured pass (work clock only: it would delay a wall clock)
    workers     auto, 0 or n: which replicas live in worker processes (fleet.Fleet), with `hang_s` and `restart`
    timer       another clock, for tests

    `watch`, if somebody sets it, is called after each measured pass, outside its time; what it raises ends the run.
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
        workers: str | int = AUTO,
        hang_s: float = 60.0,
        restart: bool = False,
        timer: clocks.Clock | None = None,
        attention: str = "auto",
    ) -> None:
        self.library = Library(device, precision, seed, weights, attention)
        self.timer = timer or clocks.clock(clock, self.library.device)
        self.clock = clock
        self.cocalibrate = cocalibrate and clock == "work"
        self.driver = WallDriver if clock == "wall" else None
        self.results = Results()
        self.sequences = Sequences(self.results)
        self.parts = Parts(self.library, self.timer, self.results, self.sequences)
        self.fleet = Fleet(self.parts, clock, workers, hang_s, restart)
        self._probes: dict[str, tuple[Deployment, Probe]] = {}
        self.watch: Callable[[], None] | None = None
        self._measured: list[dict[str, Any]] = []
        self._threads = torch.get_num_threads()
        clocks.settle()

    def executor(self, deployment: Deployment, replica: int, script: Script) -> Executor:
        """The executor of one replica, with memory of its own; weights are shared by those of this process. Called once
        for each replica."""
        if deployment.kind not in KINDS:
            raise unknown("kind of pool", deployment.kind, KINDS)
        record = partial(self._record, deployment, replica)
        if self.fleet.takes(deployment):
            make = partial(self.probe, deployment) if self.cocalibrate else None
            return self.fleet.executor(deployment, replica, script, record, make)
        work = KINDS[deployment.kind].work(self.parts, deployment, script)
        probe = self.probe(deployment) if self.cocalibrate else None
        clocks.settle()
        return TorchExecutor(work, self.timer, record, probe)

    def probe(self, deployment: Deployment) -> Probe:
        """What takes the calibration samples of a pool; its replicas share it, and so do the pools of a family."""
        family = deployment.family or deployment.name
        if family not in self._probes:
            far = self.fleet.takes(deployment)
            made = self.fleet.probe(deployment) if far else KINDS[deployment.kind].probe(self.parts, deployment)
            self._probes[family] = deployment, made
        return self._probes[family][1]

    def default_kv_blocks(self, deployment: Deployment) -> int:
        """KV blocks of one replica when the config names none; BadInput if not even one fits."""
        return self.library.default_kv_blocks(deployment)

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
        for other, probe in self._probes.values():
            if other.kind != deployment.kind or other is deployment:
                samples |= getattr(probe, "beside", {})
        return profile_from_samples(
            samples,
            device=self.device_name(),
            model=deployment.likeness,
            precision=self.library.precision,
            block_size=deployment.block_size,
            attention=self.attention(),
            **({} if deployment.speculation is None else {DRAFT: deployment.speculation.draft.name}),
        )

    def calibrate(
        self, deployment: Deployment, samples: int, seconds: float, progress: Callable[[int], None] | None = None
    ) -> dict[str, Any]:
        """The profile of a pool from `samples` passes within its limits, in at most `seconds`; services that were
        sampled before are in it too."""
        return calibrate(deployment, self, samples, seconds, progress)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what one should doubt about the run."""
        return *doubts(self.library.device, self.library.dtype), *self.fleet.incidents

    def efficiency(self, deployment: Deployment) -> Efficiency:
        """What measures how close a pool comes to its own matrix products; to be made before the run."""
        from real_backend.efficiency import Efficiency

        return Efficiency(self.library, self.sequences, self.timer, deployment)

    def measurements(self) -> list[dict[str, Any]]:
        """One row per measured pass, in order: what ran, when, and its seconds by part and by clock."""
        return self._measured

    def findings(self) -> dict[str, dict[str, Any]]:
        """What is known of services besides times, by pool: the recall of an index. Asked when the run is over."""
        return {name: getattr(service, "findings", dict)() for name, service in self.parts.services.items()}

    def drop(self, job: int) -> None:
        """Forget a job (by id) that was cancelled."""
        self.sequences.drop(job)

    def forget(self, request: Request) -> None:
        """Forget everything of a request that is over: called when it ends, however it ends."""
        self.sequences.release(request.id)
        self.results.release(request.id)

    def leaks(self) -> list[str]:
        """What is still kept of requests although the run is over; nothing, if all is well."""
        kept = {"token sequences": len(self.sequences), "results of jobs": len(self.results)}
        return [f"the backend has {count} {name}" for name, count in kept.items() if count]

    def attention(self) -> dict[str, str]:
        """Name of the attention backend in use, and its features: `padded` or `ragged`."""
        name, backend = self.library.attention
        return {"name": name, "features": backend.features}

    def device_name(self) -> str:
        return self.library.device_name()

    def rest(self) -> None:
        """The run is over: no worker process is left. Measurements and samples stay."""
        self.fleet.end()

    def close(self) -> None:
        """Give models and memory back; measurements stay."""
        self.rest()
        self.library.close()
        self._probes.clear()
        self.parts.close()
        gc.unfreeze()
        torch.set_num_threads(self._threads)

    def _profiled(self, pool: str | None) -> Deployment:
        sampled = [deployment for deployment, probe in self._probes.values() if probe.samples]
        named = [deployment for deployment in sampled if pool in (None, deployment.name)]
        if not named:
            raise BadInput(
                "no calibration sample was taken" + (f" for pool '{pool}'" if pool else "") + ": run with "
                "backend.cocalibrate=true and backend.clock=work, or use airi calibrate."
            )
        return min(named, key=lambda deployment: deployment.kind != "generate")

    def _record(self, deployment: Deployment, replica: int, plan: Plan, now: float, split: Split) -> None:
        row = {
            "pool": deployment.name,
            "replica": replica,
            "server": plan.server,
            "kind": deployment.kind,
            "start_s": now,
            "seconds": split.seconds,
            "slices": len(plan.slices),
            "items": sum(job.items for job, _ in plan.slices),
        }
        self._measured.append(row | {name: getattr(plan, name) for name in COLUMNS} | split._asdict())
        if self.watch is not None:
            self.watch()

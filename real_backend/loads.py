"""Models that come and go on a device: weights from a file, or from a copy that the host kept, to where they run.

A load maps the file (or finds the copy), copies the weights to the device, builds the model and its KV cache, and makes
the first passes, so that none of that is part of the run's passes. An unload gives all of it back. Both are timed by
the clock of the run. On a CPU with the work clock that is CPU time: files that were written or read lately come from
the page cache, and waiting for a drive is not counted (`wall_s` of a measurement is).
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any
from weakref import finalize
from zlib import crc32

import torch
from torch import Tensor

from airi_sim.core.protocols import Script
from airi_sim.core.types import Job, Plan
from airi_sim.hardware.deployment import Deployment
from airi_sim.hardware.loading import section
from real_backend import model as models
from real_backend import weights as stored
from real_backend.batch import Segment
from real_backend.calibrate import Sample
from real_backend.clock import Clock, Stopwatch
from real_backend.executor import GenerateWork
from real_backend.kv import PagedKV
from real_backend.library import Library
from real_backend.runner import Runner
from real_backend.sequences import Sequences

WARM_UP = 2
"""Times that a new model makes a pass with a prompt and a decode in it before it serves."""
HOST = "host"
NAMES = {dtype: name for name, dtype in stored.DTYPES.items()}


class Berth(GenerateWork):
    """The place of a replica whose model comes and goes: `runner` is there from a load to an unload."""

    def __init__(self, deployment: Deployment, script: Script, sequences: Sequences) -> None:
        self.deployment = deployment
        self.script, self.sequences = script, sequences

    def clear(self) -> None:
        """The model is gone, if it was there."""
        with suppress(AttributeError):
            del self.runner


class Shelf:
    """Where weights lie that are on no device: files, and the copies that the host keeps.

    A model whose weights nobody named is drawn from the seed and written to a file first, which is not timed.
    """

    def __init__(self, library: Library) -> None:
        self.library = library
        self.host: dict[str, dict[str, Tensor]] = {}
        self._folder = mkdtemp(prefix="airi-weights-")
        self._clean = finalize(self, rmtree, self._folder, ignore_errors=True)
        self._files: dict[str, Path] = {}

    def file(self, deployment: Deployment) -> Path:
        """The file, or folder of files, of the model of a pool."""
        spec, library = self.library.spec(deployment), self.library
        if spec.name not in self._files:
            given = library.weights.get(spec.name) or library.weights.get(deployment.family)
            path = Path(given) if given else Path(self._folder, f"{len(self._files)}.safetensors")
            if not given:
                write_file(path, stored.draw(spec, library.seed + crc32(spec.name.encode()), "cpu", library.dtype))
            self._files[spec.name] = path
        return self._files[spec.name]

    def weights(self, deployment: Deployment, tier: str, keep: bool) -> Mapping[str, Tensor]:
        """The weights of a pool's model in host memory: mapped from the file, or the copy that the host has (`tier`
        host) or keeps from now on."""
        name = self.library.spec(deployment).name
        if tier != HOST:
            mapped = stored.read(self.library.spec(deployment), self.file(deployment))
            if not keep:
                return mapped
            self.host[name] = self.pinned(mapped)
        return self.host[name]

    def pinned(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A copy in host memory, page-locked where a CUDA device is to read it."""
        pin = self.library.device.type == "cuda"
        return {name: torch.empty_like(t, pin_memory=pin).copy_(t) for name, t in tensors.items()}

    def close(self) -> None:
        self.host.clear()
        self._clean()


def write_file(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file: 8 bytes of header length, a JSON header, the data."""
    header, at = {}, 0
    for name, tensor in tensors.items():
        end = at + tensor.numel() * tensor.itemsize
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(tensor.contiguous().view(torch.uint8).numpy().data)


class LoadWork:
    """What a loader does: the plans of places.Load jobs. `berths` by pool, in order of the replicas."""

    detailed = False

    def __init__(self, shelf: Shelf, berths: Mapping[str, list[Berth]]) -> None:
        self.shelf, self.berths = shelf, berths

    def prepare(self, plan: Plan) -> None:
        """Files that have to be made up are made before the watch starts."""
        self.shelf.file(self.berth(plan.slices[0][0]).deployment)

    def run(self, plan: Plan, watch: Stopwatch) -> None:
        job = plan.slices[0][0]
        if plan.kind == "load":
            self.load(self.berth(job), job.tier, job.spot.model in job.kept, watch)
            self._forget(job.kept)
        else:
            self.unload(self.berth(job), watch)

    def commit(self, plan: Plan, found: None) -> list[Job]:
        return [job for job, _ in plan.slices]

    def drop(self, job: int) -> None:
        """Loads are not cancelled."""

    def bring(self, job: Any) -> None:
        """A model that is there when the run begins."""
        self.load(self.berth(job), job.tier, job.spot.model in job.kept, None)
        self._forget(job.kept)

    def berth(self, job: Any) -> Berth:
        """The berth of the replica that a load is for."""
        pool, _, replica = job.spot.server.name.rpartition("/")
        return self.berths[pool][int(replica)]

    @torch.inference_mode()
    def load(self, berth: Berth, tier: str, keep: bool, watch: Stopwatch | None) -> None:
        """Weights to the host (first lap), to the device (second), first passes."""
        deployment, library = berth.deployment, self.shelf.library
        berth.clear()
        found = self.shelf.weights(deployment, tier, keep)
        if watch is not None:
            watch.lap()
        device = str(library.device)
        there = {name: tensor.to(device, library.dtype, copy=True) for name, tensor in found.items()}
        model = models.build(library.spec(deployment), there, device, library.dtype)
        del there
        cache = PagedKV(
            model.spec, deployment.kv_blocks, deployment.block_size, library.device, library.dtype,
            deployment.swap_blocks,
        )  # fmt: skip
        berth.runner = Runner(model, cache, library.attention[1])
        berth.runner.images = library.images
        if watch is not None:
            watch.lap()
        for _ in range(WARM_UP):
            berth.runner.run(_first(deployment), Stopwatch(Still()))

    def unload(self, berth: Berth, watch: Stopwatch) -> None:
        """Give the memory of a model back."""
        watch.lap()
        berth.clear()
        if self.shelf.library.device.type == "cuda":
            torch.cuda.empty_cache()
        watch.lap()

    def _forget(self, kept: tuple[str, ...]) -> None:
        for name in self.shelf.host.keys() - set(kept):
            del self.shelf.host[name]


class Still:
    """A clock for passes that nobody times."""

    def mark(self) -> None: ...

    def seconds(self, first: None, last: None) -> float:
        return 0.0


def _first(deployment: Deployment) -> list[Segment]:
    """A decode and a prompt, each in blocks of its own where there are two."""
    block = min(2, deployment.kv_blocks)
    return [Segment(1, array("q", [0]), [1], True), Segment(0, array("q", [0, 0]), [block], True)]


class LoadProbe:
    """After each measured load the same model once more from every tier, to a place that is no replica's.

    What is there from the sample before is unloaded first, as a replica's model makes way for the next one: a load then
    finds memory that was given back a moment ago. Without that samples took 12 % longer than loads, by page faults.
    That model, and the one on which passes are sampled, lie beside the memory that the replicas share.
    """

    def __init__(self, work: LoadWork, clock: Clock, tiers: tuple[str, ...]) -> None:
        self.work, self.clock, self.tiers = work, clock, tiers
        self.samples: list[Sample] = []
        self.beside: dict[str, list[Sample]] = {}
        self.like = next(berth for berths in work.berths.values() for berth in berths)
        self.scratch: Berth | None = None
        self.take()
        self.beside.clear()
        self.take()

    def follow(self, plan: Plan) -> None:
        if plan.kind == "load":
            self.like = self.work.berth(plan.slices[0][0])
            self.take()

    def take(self) -> None:
        """The model that was loaded last; at first any."""
        shelf, deployment = self.work.shelf, self.like.deployment
        spec = shelf.library.spec(deployment)
        size, kept = round(spec.weight_bytes(shelf.library.precision)), shelf.host.get(spec.name)
        for tier in self.tiers:
            if self.scratch is not None:
                self._time("unload", size, self.work.unload, self.scratch)
            self.scratch = Berth(deployment, self.like.script, self.like.sequences)
            self._time(section("load", tier), size, self.work.load, self.scratch, tier, len(self.tiers) > 1)
        shelf.host.pop(spec.name, None)
        if kept is not None:
            shelf.host[spec.name] = kept

    def widen(self) -> None:
        """Loads have no range but the models there are."""

    def _time(self, name: str, size: int, action: Callable[..., None], *arguments: Any) -> None:
        watch = Stopwatch(self.clock)
        action(*arguments, watch)
        plan = Plan(-1, 0.0, [(None, size)], prefill_tokens=size)
        self.beside.setdefault(name, []).append(Sample(plan, watch.stop().seconds))

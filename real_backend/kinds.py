"""What each kind of pool does with its plans, and what takes its calibration samples: one entry a kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from airi_sim.core.protocols import Script
from airi_sim.hardware.deployment import Deployment
from airi_sim.hardware.service import index_shape
from airi_sim.runtime.features import KEYS
from airi_sim.workload.programs import CHUNK
from real_backend import vision
from real_backend.calibrate import GenerateProbe, Limits, Probe
from real_backend.clock import Clock
from real_backend.copies import CopyingProbe
from real_backend.executor import GenerateWork, Work
from real_backend.heads import draw_head
from real_backend.library import Library
from real_backend.loads import HOST, Berth, LoadProbe, LoadWork, Shelf
from real_backend.results import Results
from real_backend.sequences import Sequences
from real_backend.services.features import FeatureTable, LookUpProbe, LookUps
from real_backend.services.images import Imager, images_among
from real_backend.services.search import Searcher, build_index
from real_backend.services.texts import Classifier, Embedder, Reranker
from real_backend.services.work import Service, ServiceProbe, ServiceWork
from real_backend.speculation import speculate, speculative_probe

WIDTH = 16
"""Features of a key, where a pool does not say."""


@dataclass
class Parts:
    """What the pools of a backend are made from and share."""

    library: Library
    timer: Clock
    results: Results
    sequences: Sequences
    services: dict[str, Service] = field(default_factory=dict)
    tables: dict[str, FeatureTable] = field(default_factory=dict)
    berths: dict[str, list[Berth]] = field(default_factory=dict)
    shelf: Shelf | None = None

    def __post_init__(self) -> None:
        self.library.images = partial(images_among, self.results)

    @property
    def seed(self) -> int:
        return self.library.seed

    def close(self) -> None:
        """Give everything back but the models of the library."""
        self.services.clear()
        for table in self.tables.values():
            table.close()
        self.tables.clear()
        self.berths.clear()
        if self.shelf is not None:
            self.shelf.close()
            self.shelf = None


class Kind(NamedTuple):
    """How the work and the calibration probe of a pool are made."""

    work: Callable[[Parts, Deployment, Script], Work]
    probe: Callable[[Parts, Deployment], Probe]


def generate(parts: Parts, deployment: Deployment, script: Script) -> Work:
    if deployment.speculation is not None:
        return speculate(parts, deployment, script)
    if deployment.devices:
        berth = Berth(deployment, script, parts.sequences)
        parts.berths.setdefault(deployment.name, []).append(berth)
        return berth
    runner = parts.library.runner(deployment, deployment.kv_blocks, deployment.swap_blocks)
    return GenerateWork(runner, script, parts.sequences)


def generate_probe(parts: Parts, deployment: Deployment) -> Probe:
    limits = generate_limits(parts.library, deployment)
    if deployment.speculation is not None:
        return speculative_probe(parts, deployment, limits)
    scratch = parts.library.scratch_blocks(deployment, limits.blocks)
    runner = parts.library.runner(deployment, scratch, min(scratch, deployment.swap_blocks))
    return (CopyingProbe if deployment.copies else GenerateProbe)(runner, parts.timer, limits, parts.seed)


def generate_limits(library: Library, deployment: Deployment) -> Limits:
    """The largest pass of a pool that generates."""
    blocks = deployment.kv_blocks or library.default_kv_blocks(deployment)
    longest = min(library.spec(deployment).max_len, blocks * deployment.block_size) - 1
    return Limits(deployment.max_num_seqs, longest, deployment.max_num_batched_tokens, blocks)


def loading(parts: Parts, _deployment: Deployment, _script: Script) -> Work:
    return LoadWork(shelf_of(parts), parts.berths)


def loading_probe(parts: Parts, deployment: Deployment) -> Probe:
    service = deployment.service or {}
    tiers = (str(service["tier"]), *((HOST,) if service["host_bytes"] else ()))
    return LoadProbe(LoadWork(shelf_of(parts), parts.berths), parts.timer, tiers)


def shelf_of(parts: Parts) -> Shelf:
    """Where the weights of models lie that come and go: one for all devices."""
    if parts.shelf is None:
        parts.shelf = Shelf(parts.library)
    return parts.shelf


def service(make: Callable[[Parts, Deployment], Service]) -> Kind:
    """A kind whose pools do their jobs in batches; the replicas of a pool share the service that `make` makes."""

    def shared(parts: Parts, deployment: Deployment) -> Service:
        if deployment.name not in parts.services:
            parts.services[deployment.name] = make(parts, deployment)
        return parts.services[deployment.name]

    def work(parts: Parts, deployment: Deployment, script: Script) -> Work:
        return ServiceWork(shared(parts, deployment), script, parts.results)

    def probe(parts: Parts, deployment: Deployment) -> Probe:
        limits = service_limits(deployment)
        return ServiceProbe(shared(parts, deployment), deployment.kind, parts.timer, limits, parts.seed)

    return Kind(work, probe)


def embedder(parts: Parts, deployment: Deployment) -> Service:
    return Embedder(parts.library.model(deployment), parts.results)


def reranker(parts: Parts, deployment: Deployment) -> Service:
    head = draw_head(parts.library.spec(deployment), 1, parts.seed, str(parts.library.device))
    chunk = service_key(deployment, "chunk_tokens", CHUNK)
    return Reranker(parts.library.model(deployment), head, chunk, parts.results)


def classifier(parts: Parts, deployment: Deployment) -> Service:
    spec, labels = parts.library.spec(deployment), service_key(deployment, "labels", 2)
    head = draw_head(spec, labels, parts.seed, str(parts.library.device))
    return Classifier(parts.library.model(deployment), head, parts.results)


def imager(parts: Parts, deployment: Deployment) -> Service:
    library, spec = parts.library, parts.library.spec(deployment)
    device, path = str(library.device), library.weights.get(spec.name)
    tensors = vision.read(spec, path) if path else vision.draw(spec, library.seed, device, library.dtype)
    return Imager(vision.build(spec, tensors, device, library.dtype))


def searcher(parts: Parts, deployment: Deployment) -> Service:
    described = {"vectors": 10000, "width": 128} | (deployment.service or {})
    shape = index_shape(described, deployment.name)
    assert shape is not None
    index, apart = build_index(shape, parts.seed, str(parts.library.device))
    return Searcher(index, service_key(deployment, "chunk_tokens", CHUNK), parts.results, apart)


def look_ups(parts: Parts, deployment: Deployment, _script: Script) -> Work:
    return LookUps(table_of(parts, deployment), parts.results)


def look_up_probe(parts: Parts, deployment: Deployment) -> Probe:
    return LookUpProbe(table_of(parts, deployment), parts.timer, parts.seed)


def table_of(parts: Parts, deployment: Deployment) -> FeatureTable:
    """The table of a feature pool, made once and shared by its replicas."""
    if deployment.name not in parts.tables:
        keys, width = service_key(deployment, "keys", KEYS), service_key(deployment, "width", WIDTH)
        parts.tables[deployment.name] = FeatureTable(keys, width, parts.seed)
    return parts.tables[deployment.name]


def service_key(deployment: Deployment, key: str, default: int) -> int:
    """A whole number among the constants of a service pool."""
    return int((deployment.service or {}).get(key, default))


def service_limits(deployment: Deployment) -> Limits:
    """How large a batch of a service may be."""
    longest = deployment.model.max_len if deployment.model else deployment.max_num_batched_tokens
    return Limits(deployment.max_num_seqs, longest, deployment.max_num_batched_tokens)


KINDS = {
    "generate": Kind(generate, generate_probe),
    "load": Kind(loading, loading_probe),
    "embed": service(embedder),
    "rerank": service(reranker),
    "classify": service(classifier),
    "vision": service(imager),
    "search": service(searcher),
    "features": Kind(look_ups, look_up_probe),
}

"""What each kind of pool does with its plans, and what takes its calibration samples: one entry a kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from airi_sim.core.protocols import Script
from airi_sim.hardware.deployment import Deployment
from real_backend.calibrate import GenerateProbe, Limits, Probe, ServiceProbe
from real_backend.clock import Clock, Stopwatch
from real_backend.executor import GenerateWork, Work
from real_backend.library import Library
from real_backend.results import Results
from real_backend.sequences import Sequences
from real_backend.services import EmbedWork, FlatIndex, SearchWork, embed
from real_backend.speculation import speculate, speculative_probe


@dataclass
class Parts:
    """What the pools of a backend are made from and share."""

    library: Library
    timer: Clock
    results: Results
    sequences: Sequences
    indexes: dict[str, FlatIndex] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        return self.library.seed


class Kind(NamedTuple):
    """How the work and the calibration probe of a pool are made."""

    work: Callable[[Parts, Deployment, Script], Work]
    probe: Callable[[Parts, Deployment], Probe]


def generate(parts: Parts, deployment: Deployment, script: Script) -> Work:
    if deployment.speculation is not None:
        return speculate(parts, deployment, script)
    return GenerateWork(
        parts.library.runner(deployment, deployment.kv_blocks, deployment.swap_blocks), script, parts.sequences
    )


def generate_probe(parts: Parts, deployment: Deployment) -> Probe:
    limits = generate_limits(parts.library, deployment)
    if deployment.speculation is not None:
        return speculative_probe(parts, deployment, limits)
    runner = parts.library.runner(deployment, parts.library.scratch_blocks(deployment, limits.blocks))
    return GenerateProbe(runner, parts.timer, limits, parts.seed)


def generate_limits(library: Library, deployment: Deployment) -> Limits:
    """The largest pass of a pool that generates."""
    blocks = deployment.kv_blocks or library.default_kv_blocks(deployment)
    longest = min(library.spec(deployment).max_len, blocks * deployment.block_size) - 1
    return Limits(deployment.max_num_seqs, longest, deployment.max_num_batched_tokens, blocks)


def embedding(parts: Parts, deployment: Deployment, script: Script) -> Work:
    return EmbedWork(parts.library.model(deployment), script, parts.results)


def embedding_probe(parts: Parts, deployment: Deployment) -> Probe:
    model = parts.library.model(deployment)

    def run(lengths: list[int], watch: Stopwatch) -> None:
        embed(model, [[token % model.spec.vocab for token in range(length)] for length in lengths], watch)

    return ServiceProbe(run, parts.timer, service_limits(deployment), parts.seed)


def search(parts: Parts, deployment: Deployment, _script: Script) -> Work:
    return SearchWork(index_of(parts, deployment), service_key(deployment, "chunk_tokens", 64), parts.results)


def search_probe(parts: Parts, deployment: Deployment) -> Probe:
    index = index_of(parts, deployment)

    def run(lengths: list[int], watch: Stopwatch) -> None:
        watch.lap()
        index.search(index.vectors[: len(lengths)], 4)[1].tolist()
        watch.lap()

    return ServiceProbe(run, parts.timer, service_limits(deployment), parts.seed)


def index_of(parts: Parts, deployment: Deployment) -> FlatIndex:
    """The index of a pool, built once and shared by its replicas."""
    if deployment.name not in parts.indexes:
        vectors, width = service_key(deployment, "vectors", 10000), service_key(deployment, "width", 128)
        parts.indexes[deployment.name] = FlatIndex(vectors, width, parts.seed, str(parts.library.device))
    return parts.indexes[deployment.name]


def service_key(deployment: Deployment, key: str, default: int) -> int:
    """A whole number among the constants of a service pool."""
    return int((deployment.service or {}).get(key, default))


def service_limits(deployment: Deployment) -> Limits:
    """How large a batch of a service may be."""
    longest = deployment.model.max_len if deployment.model else deployment.max_num_batched_tokens
    return Limits(deployment.max_num_seqs, longest, deployment.max_num_batched_tokens)


KINDS = {
    "generate": Kind(generate, generate_probe),
    "embed": Kind(embedding, embedding_probe),
    "search": Kind(search, search_probe),
}

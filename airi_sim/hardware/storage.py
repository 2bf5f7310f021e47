"""Bytes between the memory of accelerators and the tiers below it: host, local drives, object store.

A transfer streams through all stages at once, so the slowest one decides; each adds its latency once. An accelerator
has its own link to the host; drives and store belong to the whole node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from airi_sim.core.errors import BadInput, unknown
from airi_sim.core.types import Copies, Copy, Plan
from airi_sim.hardware.deployment import Deployment
from airi_sim.hardware.fitted import service_from
from airi_sim.hardware.network import Node, node_around
from airi_sim.models.spec import kept_precision

TIERS = {"host": ("host",), "nvme": ("nvme", "host"), "store": ("store", "host")}
"""The links between each tier and the memory of an accelerator, from below."""


class Transfer(NamedTuple):
    """How many bytes, and how many seconds if nothing else uses the links."""

    size: float
    seconds: float


def transfer(size: float, node: Node, tier: str, accelerators: int = 1) -> Transfer:
    """`size` bytes between `tier` and the memory of `accelerators`, each of which takes its share."""
    if tier not in TIERS:
        raise unknown("tier", tier, TIERS)
    if size < 0 or not 1 <= accelerators <= node.accelerators:
        raise BadInput(
            f"a transfer needs 0 bytes or more and from 1 to {node.accelerators} accelerators of node '{node.name}'; "
            f"got {size} and {accelerators}."
        )
    links = [(node.link(name), accelerators if name == "host" else 1) for name in TIERS[tier]]
    slowest = min(link.rate * lanes for link, lanes in links)
    return Transfer(size, sum(link.latency_s for link, _ in links) + size / slowest)


def swap(tokens: int, bytes_per_token: float, node: Node, tier: str = "host", accelerators: int = 1) -> Transfer:
    """The KV of `tokens` moved out, or back in: what offloading costs instead of computing it again."""
    return transfer(tokens * bytes_per_token, node, tier, accelerators)


def load(weight_bytes: float, node: Node, tier: str = "store", accelerators: int = 1, init_s: float = 0.0) -> Transfer:
    """Weights from `tier` onto `accelerators`, then `init_s` seconds until the engine serves (graph capture, warm-up:
    2-30 s, measured per engine)."""
    size, seconds = transfer(weight_bytes, node, tier, accelerators)
    return Transfer(size, seconds + init_s)


COPY = "copy"
"""What a calibration profile calls them."""


class CopyCost(Protocol):
    """How long the copies before a pass take, in seconds."""

    def seconds(self, copies: Copies) -> float: ...


@dataclass(frozen=True)
class LinkCopies:
    """KV blocks of `block_bytes` over the host links of `accelerators` in `node`, one direction after the other, or
    from block to block at `bandwidth` bytes/s each, where every byte is read and written.

    Engines that copy block by block and layer by layer reach less of the link than this (Kwon et al., SOSP 2023,
    section 7.3); `efficiency` of the node's host link says how much is reached.
    """

    block_bytes: float
    node: Node
    accelerators: int
    bandwidth: float

    def seconds(self, copies: Copies) -> float:
        """Without a copy in some direction that one takes no time."""
        inside = 2 * _blocks(copies.inside) * self.block_bytes / (self.bandwidth * self.accelerators)
        return self._over_link(_blocks(copies.out)) + self._over_link(_blocks(copies.back)) + inside

    def _over_link(self, blocks: int) -> float:
        return transfer(blocks * self.block_bytes, self.node, "host", self.accelerators).seconds if blocks else 0.0


class MeasuredCopies:
    """By the `copy` section of a calibration profile: a service whose jobs are copies and whose tokens are blocks."""

    def __init__(self, profile: Mapping[str, Any]) -> None:
        self.cost = service_from(profile, COPY)

    def seconds(self, copies: Copies) -> float:
        return self.cost.affine(copies_as_plan(copies)).first


def copies_as_plan(copies: Copies) -> Plan:
    """What a calibration profile is fitted to: a slice each, `prefill_tokens` blocks."""
    all_of_them = [(copy.job, copy.blocks) for part in copies for copy in part if copy.blocks]
    return Plan(-1, 0.0, all_of_them, prefill_tokens=sum(blocks for _, blocks in all_of_them))


def copy_cost(deployment: Deployment) -> CopyCost:
    """Measured if the accelerator of a generate pool comes from a calibration profile, else by its links."""
    model, device = deployment.model, deployment.accelerator
    if model is None or device is None:
        raise BadInput(f"pool '{deployment.name}' needs a model and an accelerator to be simulated.")
    if device.profile is not None:
        return MeasuredCopies(device.profile)
    size = block_bytes(deployment)
    return LinkCopies(size, node_around(device), deployment.tp, device.bandwidth * device.e_m)


def block_bytes(deployment: Deployment) -> float:
    """Bytes of one KV block of a generate pool, on all accelerators of a replica together."""
    assert deployment.model is not None
    return deployment.block_size * deployment.model.kv_bytes_per_token(kept_precision(deployment.precision))


def _blocks(copies: Sequence[Copy]) -> int:
    return sum([copy.blocks for copy in copies])

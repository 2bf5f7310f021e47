"""Bytes between the memory of accelerators and the tiers below it: host, local drives, object store.

A transfer streams through all stages at once, so the slowest one decides; each adds its latency once. An accelerator
has its own link to the host; drives and store belong to the whole node.
"""

from __future__ import annotations

from typing import NamedTuple

from airi_sim.core.errors import BadInput, unknown
from airi_sim.hardware.network import Node

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

"""Nodes, the wires in and between them, and the way from one replica to another.

A wire is one direction of one link, at the rate that transfers really reach. A replica of n accelerators has n times
the wires of one: its shards move side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import inf
from typing import Any, NamedTuple

from airi_sim.core.errors import BadInput, unknown
from airi_sim.hardware.fabric import Tables, check_tables

LINKS = ("scale_up", "nic", "host", "nvme", "store")


@dataclass(frozen=True)
class Wire:
    """`bandwidth` peak bytes/s in one direction, the `efficiency` that large transfers reach of it, `latency_s` before
    the first byte arrives, and where that is known from (one yaml each in conf/link)."""

    bandwidth: float
    efficiency: float = 0.8
    latency_s: float = 0.0
    source: str = ""

    def __post_init__(self) -> None:
        if not (self.bandwidth > 0 and 0 < self.efficiency <= 1 and self.latency_s >= 0):
            raise BadInput(
                "a link needs a bandwidth above 0 bytes/s, an efficiency above 0 and at most 1, and a latency_s of 0 "
                f"or more; got {self.bandwidth}, {self.efficiency}, {self.latency_s}."
            )
        if not isinstance(self.source, str):
            raise BadInput(f"the source of a link is text, not {self.source}.")

    @property
    def rate(self) -> float:
        """Bytes/s that transfers reach."""
        return self.bandwidth * self.efficiency


COMMON: dict[str, Wire] = {
    "nic": Wire(50e9, 0.85, 5e-6),  # InfiniBand NDR, data sheet; efficiency is a guess
    "host": Wire(64e9, 0.85, 8e-6),  # pinned memory over PCIe 5 x16; guess, 50-55 GB/s commonly seen
    "nvme": Wire(7e9, 0.9, 80e-6),  # generation 4, reading
    "store": Wire(1e9, 0.9, 30e-3),  # object store over the network
}
"""Links of a node that says nothing about them."""


@dataclass(frozen=True)
class Node:
    """One machine: `accelerators` of them, `nics` network cards, and its links by name (one yaml each in conf/node).

    scale_up  accelerator to accelerator inside the node, per accelerator (NVLink, or PCIe where there is none)
    nic       one network card (InfiniBand, Ethernet)
    host      one accelerator to the memory of the host
    nvme      the local drives, all together
    store     the object store, for the whole node

    `collectives` are those measured on it: {operation: {engine: {ranks: [alpha_s, bus bytes/s]}}} (hardware.fabric).
    """

    name: str
    accelerators: int = 8
    nics: int = 8
    links: Mapping[str, Any] = field(default_factory=dict)
    collectives: Tables = field(default_factory=dict)
    confidence: str = "low"
    source: str = ""

    def __post_init__(self) -> None:
        check_tables(self.name, self.collectives)
        if self.accelerators < 1 or not 1 <= self.nics <= self.accelerators:
            raise BadInput(
                f"node '{self.name}' needs at least 1 accelerator, and from 1 to {self.accelerators} nics, not "
                f"{self.nics}."
            )
        for name in self.links:
            if name not in LINKS:
                raise unknown(f"link of node '{self.name}'", name, LINKS)
        object.__setattr__(self, "links", {name: _wire(self.name, name, link) for name, link in self.links.items()})

    def link(self, name: str) -> Wire:
        """One of LINKS; what the node does not say is common, but nobody has a common scale-up link."""
        found = self.links.get(name) or COMMON.get(name)
        if found is None:
            raise BadInput(f"node '{self.name}' has no link '{name}': give it a bandwidth in bytes/s.")
        return found


def _wire(node: str, name: str, link: Any) -> Wire:
    if isinstance(link, Wire):
        return link
    known = [one.name for one in fields(Wire)]
    if not isinstance(link, Mapping) or "bandwidth" not in link:
        raise BadInput(f"link '{name}' of node '{node}' must be a mapping with the keys {', '.join(known)}.")
    for key in link:
        if key not in known:
            raise unknown(f"key of link '{name}' of node '{node}'", str(key), known)
    return Wire(**link)


def node_around(accelerator: Any) -> Node:
    """The node an accelerator sits in. If nobody described it: eight of these, joined by their interconnect, a network
    card for each."""
    if accelerator.node is not None:
        return accelerator.node
    links = {
        "scale_up": Wire(accelerator.interconnect, 0.8, 5e-6),
        "host": Wire(accelerator.host_bandwidth, 0.85, 8e-6),
    }
    return Node(f"node of {accelerator.name}", links=links, source="links of the accelerator; cards are a guess")


class Route(NamedTuple):
    """The way of bytes from one replica to another: names of wires, seconds before the first byte is there, and the
    bytes/s of the narrowest wire."""

    wires: tuple[str, ...] = ()
    latency_s: float = 0.0
    rate: float = inf


@dataclass(frozen=True)
class Place:
    """Where a replica stands: on which machine, at which of its accelerators."""

    machine: str
    node: Node
    slots: range


class Topology:
    """Replicas on machines. `rates` holds the bytes/s of every wire that a route may cross."""

    def __init__(self) -> None:
        self.places: dict[int, Place] = {}
        self.rates: dict[str, float] = {}
        self._routes: dict[tuple[int, int], Route] = {}
        self._filled: dict[str, tuple[int, int]] = {}

    def place(self, server: int, node: Node, ranks: int, group: str) -> Place:
        """Put a replica of `ranks` accelerators on the machine of its `group` that is being filled, or on the next."""
        if ranks > node.accelerators:
            raise BadInput(
                f"a replica of {ranks} accelerators does not fit on a node '{node.name}' of {node.accelerators}."
            )
        for name in ("scale_up", "nic"):
            node.link(name)
        machine, used = self._filled.get(group, (0, 0))
        if used + ranks > node.accelerators:
            machine, used = machine + 1, 0
        self._filled[group] = (machine, used + ranks)
        place = self.places[server] = Place(f"{group}:{machine}", node, range(used, used + ranks))
        return place

    def route(self, source: int, target: int) -> Route:
        """From one placed replica to another: over the scale-up links of their machine, or over network cards."""
        found = self._routes.get((source, target))
        if found is None:
            found = self._routes[source, target] = self._between(source, target)
        return found

    def _between(self, source: int, target: int) -> Route:
        if source == target:
            return Route()
        sender, receiver = self.places[source], self.places[target]
        inside = sender.machine == receiver.machine
        out, latency = self._port(sender, inside, "out")
        into, other = self._port(receiver, inside, "in")
        return Route((out, into), max(latency, other), min(self.rates[out], self.rates[into]))

    def _port(self, place: Place, inside: bool, way: str) -> tuple[str, float]:
        """Name and latency of the wire through which a replica sends or receives; replicas next to the same network
        cards share a wire (those that share only some of their cards do not)."""
        node, slots = place.node, place.slots
        link = node.link("scale_up" if inside else "nic")
        ports = slots if inside else range(*_cards(node, slots))
        name = f"{place.machine}/{'gpu' if inside else 'nic'}{ports.start}-{ports.stop - 1}/{way}"
        self.rates[name] = link.rate * len(ports)
        return name, link.latency_s


def _cards(node: Node, slots: range) -> tuple[int, int]:
    """The network cards next to these accelerators, from and up to."""
    first, last = (slot * node.nics // node.accelerators for slot in (slots.start, slots.stop - 1))
    return first, last + 1

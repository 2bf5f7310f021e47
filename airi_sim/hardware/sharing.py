"""Transfers that share wires: max-min fair rates, worked out anew only when one of them begins or ends.

At the level of flows: no packets, no slow start. Rates are those of progressive filling (Bertsekas and Gallager, Data
Networks, section 6.5.2): all grow together, whoever meets a full wire stops growing. Between two changes every rate is
constant, so the moment at which a flow has sent its last byte is exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf


def max_min(routes: Sequence[Sequence[str]], capacity: Mapping[str, float]) -> list[float]:
    """The max-min fair rate of each route in bytes/s; one that crosses no wire is infinitely fast."""
    rates = [inf] * len(routes)
    crossing: dict[str, dict[int, None]] = {}
    for i, route in enumerate(routes):
        for wire in route:
            crossing.setdefault(wire, {})[i] = None
    left = {wire: capacity[wire] for wire in crossing}
    while crossing:
        fullest = min(crossing, key=lambda wire: left[wire] / len(crossing[wire]))
        share = left[fullest] / len(crossing[fullest])
        for i in list(crossing[fullest]):
            rates[i] = share
            for wire in dict.fromkeys(routes[i]):
                left[wire] = max(0.0, left[wire] - share)
                del crossing[wire][i]
                if not crossing[wire]:
                    del crossing[wire]
    return rates


class Flow:
    """One transfer of `size` bytes over the wires of `route`. `end`: when its last byte is sent if nothing changes."""

    __slots__ = ("end", "left", "number", "rate", "route", "since")

    def __init__(self, route: Sequence[str], size: float) -> None:
        self.route = tuple(dict.fromkeys(route))
        self.left = float(size)
        self.number = -1
        self.since = self.rate = 0.0
        self.end = inf

    def paced(self, rate: float, now: float) -> None:
        """From `now` on it sends `rate` bytes/s."""
        self.left = max(0.0, self.left - self.rate * (now - self.since))
        self.since, self.rate = now, rate
        self.end = now + self.left / rate


class Sharing:
    """The flows under way over wires of known `capacity` (bytes/s). Time is an argument and must not run backwards;
    `settle` must be called at `wakeup()`, before anything else changes at that moment."""

    def __init__(self, capacity: Mapping[str, float]) -> None:
        self.capacity = capacity
        self.flows: dict[int, Flow] = {}
        self.on: dict[str, dict[int, Flow]] = {}
        self.begun = 0

    def begin(self, flow: Flow, now: float) -> list[Flow]:
        """A flow begins; returns those, itself among them, whose `end` moved."""
        moved = self.settle(now)
        flow.number, flow.since = self.begun, now
        self.begun += 1
        self.flows[flow.number] = flow
        for wire in flow.route:
            self.on.setdefault(wire, {})[flow.number] = flow
        moved += self._refill([flow], now)
        return list(dict.fromkeys(moved))

    def settle(self, now: float) -> list[Flow]:
        """Flows that have sent their last byte by `now` leave; returns those of the others whose `end` moved."""
        over = [flow for flow in self.flows.values() if flow.end <= now]
        for flow in over:
            del self.flows[flow.number]
            for wire in flow.route:
                del self.on[wire][flow.number]
        return self._refill([other for flow in over for other in self._beside(flow)], now) if over else []

    def wakeup(self) -> float:
        """When the next flow has sent its last byte."""
        return min((flow.end for flow in self.flows.values()), default=inf)

    def _refill(self, seeds: Iterable[Flow], now: float) -> list[Flow]:
        """New rates for whoever is connected to `seeds` through common wires; the others do not notice."""
        touched = self._connected(seeds)
        rates = max_min([flow.route for flow in touched], self.capacity)
        moved = [flow for flow, rate in zip(touched, rates, strict=True) if rate != flow.rate]
        for flow, rate in zip(touched, rates, strict=True):
            if rate != flow.rate:
                flow.paced(rate, now)
        return moved

    def _beside(self, flow: Flow) -> Iterable[Flow]:
        return (other for wire in flow.route for other in self.on[wire].values())

    def _connected(self, seeds: Iterable[Flow]) -> list[Flow]:
        found = {flow.number: flow for flow in seeds}
        todo = list(found.values())
        while todo:
            for other in self._beside(todo.pop()):
                if other.number not in found:
                    found[other.number] = other
                    todo.append(other)
        return [found[number] for number in sorted(found)]

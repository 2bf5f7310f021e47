"""Places for models: replicas that share the memory of a device, what brings weights there, and what the host keeps."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from math import inf
from typing import Any

from airi_sim.core.log import Log
from airi_sim.core.protocols import Queue
from airi_sim.core.types import Ended, Plan, Site
from airi_sim.runtime.job import LiveJob
from airi_sim.runtime.pool import Pool
from airi_sim.runtime.service import SlotServer

COLD, LOADING, UP, DRAINING, LEAVING, DOWN = "cold", "loading", "up", "draining", "leaving", "down"
HOST = "host"


@dataclass
class Spot:
    """A replica that is placed. `weights` and `size` in bytes (`size`: with its KV), `accelerators` it spans."""

    server: Any
    model: str
    device: str
    weights: float
    size: float
    accelerators: int = 1
    state: str = COLD
    used: float = -inf
    idle: float = -inf

    @property
    def site(self) -> Site:
        """What a placement sees of it."""
        state = self.state if self.server.up else DOWN
        return Site(
            self.server.index, self.model, self.device, self.size, state, len(self.server.jobs), self.used, self.idle
        )


@dataclass
class Memory:
    """Memory that models share: `budget` bytes, what brings models there, and the loads that wait for room."""

    name: str
    budget: float
    loader: Loader
    spots: list[Spot] = field(default_factory=list)
    line: deque[Spot] = field(default_factory=deque)

    def held(self, *states: str) -> float:
        """Bytes of the replicas in these states."""
        return sum([spot.size for spot in self.spots if spot.state in states])

    @property
    def free(self) -> float:
        """Bytes that are promised to nobody: what drains is free to be promised."""
        return self.budget - self.held(LOADING, UP)

    @property
    def room(self) -> float:
        """Bytes that are free right now."""
        return self.budget - self.held(LOADING, UP, DRAINING, LEAVING) + sum([spot.size for spot in self.line])


class Load(LiveJob):
    """A job of a loader: bring the weights of `spot` from `tier` (`tokens` bytes of them), or take it away. `kept`: the
    models of which the host has a copy when it is over."""

    spot: Spot
    verb = "load"
    tier = HOST
    kept: tuple[str, ...] = ()


class Loader(SlotServer):
    """The way of weights to one device: one load or unload at a time, in order of asking."""

    def __init__(self, name: str, index: int, make_queue: Callable[[], Queue], log: Log) -> None:
        super().__init__(name, index, make_queue, log, depth=1)

    def _send(self, jobs: list[LiveJob], now: float, choice: str) -> Plan:
        """The decision was the placement's and is in the log already."""
        load = jobs[0]
        assert isinstance(load, Load)
        plan = Plan(self.index, now, [(load, load.tokens)], jobs, kind=load.verb, prefill_tokens=load.tokens)
        self.flights.append(plan)
        self.passes += 1
        return plan

    def _record(self, plan: Plan, outcome: Ended, now: float) -> None:
        """A line of the replica that is loaded."""
        name = plan.slices[0][0].spot.server.name
        self.log.plans.append((
            name, plan.kind, plan.start, now, outcome[0], 0, plan.prefill_tokens, 0, 0, len(self.queue),
            outcome[2], 0,
        ))  # fmt: skip


class HostCopies:
    """Weights that the host keeps after a load, at most `budget` bytes, least recently loaded first to go; what is not
    there comes from `below`."""

    def __init__(self, budget: float, below: str) -> None:
        self.budget, self.below = budget, below
        self.sizes: OrderedDict[str, float] = OrderedDict()

    def take(self, model: str, size: float) -> str:
        """The tier that a load of this model comes from; the host has a copy afterwards, if it fits."""
        tier = HOST if model in self.sizes else self.below
        if size <= self.budget:
            self.sizes[model] = size
            self.sizes.move_to_end(model)
        while sum(self.sizes.values()) > self.budget:
            self.sizes.popitem(last=False)
        return tier


class Places:
    """What a placement sees of it all: see core.protocols.Fleet."""

    def __init__(self, memories: Sequence[Memory]) -> None:
        self._memories = {memory.name: memory for memory in memories}
        spots = [spot for memory in memories for spot in memory.spots]
        self._spots = sorted(spots, key=lambda spot: spot.server.index)

    @property
    def sites(self) -> list[Site]:
        return [spot.site for spot in self._spots]

    def free(self, device: str) -> float:
        return self._memories[device].free


@dataclass
class PlacedPool(Pool):
    """A pool whose replicas come and go."""

    spots: Sequence[Spot] = ()

    def route(self, job: LiveJob, now: float) -> Any:
        """The replica the router chose, or the next one that is up."""
        server = super().route(job, now)
        if server is not None and self.spots[server.slot].state != UP:
            server = self._next_up(server.slot)
        if server is not None:
            self.spots[server.slot].used = now
        return server

    def _next_up(self, after: int) -> Any:
        n = len(self.servers)
        ring = [(after + k) % n for k in range(1, n)]
        return next((self.servers[i] for i in ring if self.servers[i].up and self.spots[i].state == UP), None)

    @property
    def open(self) -> bool:
        """Whether some replica takes jobs."""
        return any(spot.state == UP and spot.server.up for spot in self.spots)


def placed(pool: Pool, spots: Sequence[Spot]) -> PlacedPool:
    """The same pool, its replicas placed."""
    return PlacedPool(**{one.name: getattr(pool, one.name) for one in fields(Pool)}, spots=spots)

"""Several models share the memory of a device: loads and unloads, who waits for a model, and when room is there.

Every replica that is placed is cold, loading, up or draining. A job of a model that is nowhere up waits at the gateway;
the placement is asked and may load and unload. An unload lets the replica finish its jobs first; a load begins when its
room is free. Both are plans of the loader of the device, one at a time, so that drivers and executors need nothing new.
A run whose pools share no device has none of this: it is made with the plain Runtime.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Any

from airi_sim.core.errors import PolicyError
from airi_sim.core.protocols import Executor, Placement
from airi_sim.core.types import Call, Ended, Plan, Request
from airi_sim.runtime.gateway import GATEWAY
from airi_sim.runtime.job import LiveJob
from airi_sim.runtime.places import (
    COLD,
    DRAINING,
    LEAVING,
    LOADING,
    UP,
    HostCopies,
    Load,
    Loader,
    Memory,
    PlacedPool,
    Places,
    Spot,
)
from airi_sim.runtime.pool import Pool
from airi_sim.runtime.runtime import Runtime

FIRST_LOAD = -1_000_000_000_000
"""Ids of loads count down from here: below those of moves, which are made from the ids of jobs."""
IN_VAIN = 50
"""Loads and unloads, for each replica, without a request that comes or a pass of any model."""


class Alarm:
    """Among the timers: the placement wants to be asked. `wake` is never the time it rings, so no server is touched."""

    wake = -1.0


class PlacingRuntime(Runtime):
    """A runtime some of whose pools are `PlacedPool`s on shared `memories`."""

    def __init__(
        self, *parts: Any, placement: Placement, memories: Sequence[Memory], host: HostCopies, **more: Any
    ) -> None:
        super().__init__(*parts, **more)
        self.placement, self.host = placement, host
        self.memories = {memory.name: memory for memory in memories}
        self.fleet = Places(memories)
        self.spots = {spot.server.index: spot for memory in memories for spot in memory.spots}
        self.waiting: dict[str, deque[LiveJob]] = {}
        self.loads = self.loads_before = 0
        self.served = (0, 0)
        self.alarm, self.overdue = inf, False

    # -- what a driver calls

    def attach(self, executors: Sequence[Executor]) -> None:
        """Also bring what is to be there from the start; that takes no time of the run."""
        super().attach(executors)
        first = getattr(self.placement, "first", None)
        for index in first(self.fleet) if first is not None else ():
            spot = self._spot(index)
            self._check_room(spot)
            spot.state, spot.used, spot.idle = UP, 0.0, 0.0
            bring: Callable[[Load], None] | None = getattr(executors[self._loader(spot).index], "bring", None)
            load = self._load(spot, "load", 0.0)
            if bring is not None:
                bring(load)
        for spot in self.spots.values():
            if spot.state != UP:
                self.home[spot.server.index].board.mark(spot.server.slot, up=False)

    def arrive(self, request: Request, now: float) -> None:
        if self.overdue:
            self.overdue = False
            self._ask(now)
        super().arrive(request, now)

    def finish(self, plan: Plan, outcome: Ended, now: float) -> None:
        super().finish(plan, outcome, now)
        spot = self.spots.get(plan.server)
        if spot is not None and not spot.server.jobs:
            self._idle(spot, now)

    def tick(self, now: float) -> bool:
        """While nobody is served nothing hangs on a placement: it is asked when the next request comes, so that a run
        does not last until the last model has gone."""
        rings = self.alarm <= now
        if rings:
            self.alarm = inf
            self.overdue = not self.flows
            if self.flows:
                self._ask(now)
        return super().tick(now) or (rings and not self.overdue)

    def cancel(self, request: int, now: float, reason: str = "cancelled") -> None:
        busy = [spot for spot in self.spots.values() if spot.server.jobs]
        super().cancel(request, now, reason)
        for spot in busy:
            if not spot.server.jobs:
                self._idle(spot, now)

    def server_down(self, index: int, now: float) -> None:
        """Also of a loader: then what was on its way is not there, and nothing is loaded until it is back."""
        server, spot = self.servers[index], self.spots.get(index)
        if isinstance(server, Loader):
            self._loader_down(server, now)
        elif spot is None:
            super().server_down(index, now)
        elif server.up:
            self._spot_down(spot, now)

    def _spot_down(self, spot: Spot, now: float) -> None:
        """Its model is lost with the replica; who waits for it looks for another one."""
        memory, pool = self.memories[spot.device], self.home[spot.server.index]
        if spot.state == UP:
            spot.state = DRAINING
        elif spot in memory.line:
            memory.line.remove(spot)
            spot.state = COLD
        super().server_down(spot.server.index, now)
        if spot.state == DRAINING:
            self._idle(spot, now)
        self._let_in(pool, now)

    def server_up(self, index: int, now: float) -> None:
        super().server_up(index, now)
        if index in self.spots:
            self.home[index].board.mark(self.servers[index].slot, up=False)
        for memory in self.memories.values():
            self._pump(memory, now)
        self._ask(now)

    def stuck(self) -> str:
        """Also: who waits for a model."""
        if not self._wanted():
            return super().stuck()
        model, line = next(iter(self.waiting.items()))
        return (
            f"nothing moves any more: {len(line)} jobs wait for model '{model}', which policy {self._name} never loads."
        )

    # -- the way of a job

    def _route(self, job: LiveJob, pool: Pool, now: float) -> None:
        if isinstance(pool, PlacedPool) and not pool.open:
            self._await(job, pool, now)
        else:
            super()._route(job, pool, now)

    def _await(self, job: LiveJob, pool: PlacedPool, now: float) -> None:
        """No replica of its model is up: wait for one, unless the placement says that there will be none."""
        job.pool = pool.name
        if not any(spot.server.up for spot in pool.spots):
            self._refuse(job, "failed", f"no replica of pool '{pool.name}' is up", now)
            return
        refuse = getattr(self.placement, "refuse", None)
        reason = refuse(pool.model, self.fleet, now) if refuse is not None else ""
        if reason:
            self.log.decide(GATEWAY, self._name, job.id, "refuse", 0)
            self._refuse(job, "rejected", reason, now)
            return
        self.waiting.setdefault(pool.model, deque()).append(job)
        self._ask(now)

    # -- what the placement says

    @property
    def _name(self) -> str:
        return type(self.placement).__name__

    def _wanted(self) -> dict[str, LiveJob]:
        """The first job that waits for each model, the longest wait first."""
        for model, line in [*self.waiting.items()]:
            while line and line[0].doomed:
                line.popleft()
            if not line:
                del self.waiting[model]
        heads = [(model, line[0]) for model, line in self.waiting.items()]
        return dict(sorted(heads, key=lambda head: (head[1].arrived, head[1].id)))

    def _ask(self, now: float) -> None:
        if self.stale:
            self._tick_views(now)
        wanted = self._wanted()
        for verb, index in self.placement.place(self.fleet, wanted, now):
            spot = self._spot(index)
            asks = verb == "load" and spot.model in wanted
            choice = f"{verb} {index} {spot.model}"
            self.log.decide(GATEWAY, self._name, wanted[spot.model].id if asks else -1, choice, 0)
            self._act(verb, spot, now)
        wake = getattr(self.placement, "wake", None)
        at = wake(self.fleet, now) if wake is not None else inf
        if now < at < inf and at != self.alarm:
            self.alarm = at
            self._later(at, Alarm)

    def _act(self, verb: str, spot: Spot, now: float) -> None:
        memory = self.memories[spot.device]
        wanted = {"load": COLD, "unload": UP}.get(verb)
        if wanted is None or spot.site.state != wanted:
            raise PolicyError(
                f"policy {self._name} said {verb!r} of model '{spot.model}', which is {spot.site.state}: it may load "
                "what is cold and unload what is up."
            )
        if verb == "load":
            self._check_room(spot)
            spot.state = LOADING
            memory.line.append(spot)
            self._pump(memory, now)
            return
        spot.state = DRAINING
        self.home[spot.server.index].board.mark(spot.server.slot, up=False)
        if not spot.server.jobs:
            self._idle(spot, now)

    def _check_room(self, spot: Spot) -> None:
        free = self.memories[spot.device].free
        if spot.size > free:
            raise PolicyError(
                f"policy {self._name} loads '{spot.model}' ({spot.size:.3g} bytes) where '{spot.device}' has "
                f"{free:.3g} bytes free: unload something first."
            )

    def _spot(self, index: int) -> Spot:
        spot = self.spots.get(index)
        if spot is None:
            raise PolicyError(
                f"policy {self._name} named server {index!r}: it may place {', '.join(map(str, sorted(self.spots)))}."
            )
        return spot

    # -- loads and unloads

    def _loader(self, spot: Spot) -> Loader:
        return self.memories[spot.device].loader

    def _load(self, spot: Spot, verb: str, now: float) -> Load:
        self.loads += 1
        size = round(spot.weights)
        load = Load(Request(FIRST_LOAD - self.loads, now, size), Call(verb, size), 0, now)
        load.spot, load.verb = spot, verb
        if verb == "load":
            load.tier = self.host.take(spot.model, spot.weights)
        load.kept = tuple(self.host.sizes)
        return load

    def _pump(self, memory: Memory, now: float) -> None:
        """Begin loads in order, as long as there is room."""
        while memory.line and memory.loader.up and memory.line[0].size <= memory.room:
            self._begin(memory.line.popleft(), "load", now)

    def _begin(self, spot: Spot, verb: str, now: float) -> None:
        loader = self._loader(spot)
        loader.submit(self._load(spot, verb, now), now)
        self.touched.append(loader)

    def _idle(self, spot: Spot, now: float) -> None:
        """A replica has no job any more."""
        spot.idle = now
        if spot.state == DRAINING:
            spot.state = LEAVING
            self._begin(spot, "unload", now)
        elif spot.state == UP and (self.waiting or hasattr(self.placement, "wake")):
            self._ask(now)

    def _moved(self, move: LiveJob, now: float) -> None:
        """Also: a load or an unload is over."""
        if not isinstance(move, Load):
            super()._moved(move, now)
            return
        spot = move.spot
        self._watch_loads()
        if move.verb == "unload":
            spot.state = COLD
            spot.server.empty()
        elif spot.server.up:
            self._open(spot, now)
        else:  # it died meanwhile: nobody will use what is there now
            spot.state = DRAINING
            self._idle(spot, now)
        self._pump(self.memories[spot.device], now)
        self._ask(now)

    def _watch_loads(self) -> None:
        """Models that come and go while nobody is served end the run."""
        served = (self.counts["offered"], sum([spot.server.passes for spot in self.spots.values()]))
        if served != self.served:
            self.served, self.loads_before = served, self.loads
        elif self.loads - self.loads_before > IN_VAIN * len(self.spots):
            raise PolicyError(
                f"policy {self._name} goes in circles: {self.loads - self.loads_before} loads and unloads without a "
                "pass of any model."
            )

    def _open(self, spot: Spot, now: float) -> None:
        """A model is there."""
        spot.state, spot.used, spot.idle = UP, now, now
        pool = self.home[spot.server.index]
        pool.board.mark(spot.server.slot, up=True)
        self._let_in(pool, now)

    def _let_in(self, pool: Pool, now: float) -> None:
        """Whoever waited for the model of a pool goes on, in order."""
        for job in self.waiting.pop(pool.model, ()):
            if not job.doomed:
                self._route(job, pool, now)

    def _loader_down(self, loader: Loader, now: float) -> None:
        """What was under way has come to nothing; what was to be taken away is lost all the same."""
        if not loader.up:
            return
        for load in loader.fail(now):
            assert isinstance(load, Load)
            load.spot.state = COLD
            load.spot.server.empty()

"""The wall driver: the same runtime in real time, for true open-loop runs (no simpy, no threads)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from heapq import heappop, heappush
from itertools import count
from math import inf
from multiprocessing.connection import wait
from time import perf_counter
from typing import Any, NamedTuple, Protocol, runtime_checkable

from airi_sim.core.errors import PolicyError
from airi_sim.core.order import ARRIVAL, TIMER
from airi_sim.core.protocols import Executor
from airi_sim.core.types import Item, Plan
from airi_sim.runtime.runtime import Runtime

LISTEN_S = 0.2
"""Whoever waits for workers looks up this often."""


@runtime_checkable
class Remote(Protocol):
    """An executor whose plans run elsewhere, besides what every `Executor` has: `launch` begins one and returns.

    busy      a pass is under way (of a server that died meanwhile, too): launch nothing
    due       when to `hear` even if nothing can be read from its `channels`, by `perf_counter`
    """

    @property
    def busy(self) -> bool: ...
    @property
    def due(self) -> float: ...
    @property
    def channels(self) -> Sequence[Any]: ...

    def launch(self, plan: Plan, now: float) -> None: ...

    def hear(self) -> str:
        """What happened, without waiting: `over` (the plan is; `finish` it), `idle` (so is one whose server had died),
        `down` or `up` (the server), or nothing."""
        ...


class Moment(NamedTuple):
    """Something that happens at a set time; ties as in every driver (core.order)."""

    at: float
    order: int
    number: int
    action: Callable[[float], object]


class WallDriver:
    """Runs a workload in real time: built and run like the SimPy driver, for executors whose `start` blocks and for
    those that only `launch` (`Remote`).

    Everything happens in one thread. Arrivals and timers are polled between plans, so what comes while a plan runs
    is heard of when it ends: the runtime then gets the time of hearing, while `request.arrival` stays the intended
    moment, from which TTFT counts (open loop; with `workload.concurrency` the runtime sets arrivals, as everywhere).
    With nothing to run it sleeps until the next moment.

    Replicas in this process share the one device: their plans run one after the other, servers taking turns, so `n`
    replicas do not work at the same time, unlike under the work clock. Those in worker processes do: with all of them
    at work the driver waits until one is heard of or the next moment has come.

    `clock` and `sleep` are for tests.
    """

    def __init__(
        self,
        runtime: Runtime,
        executors: Sequence[Executor],
        *,
        learn: Callable[[Item], None] | None = None,
        progress: Callable[[int, float], None] | None = None,
        clock: Callable[[], float] = perf_counter,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self.runtime, self.executors = runtime, executors
        self.learn, self.report = learn, progress
        self.clock = clock
        self.remotes = {i: executor for i, executor in enumerate(executors) if isinstance(executor, Remote)}
        self.sleep = sleep or (self._listen if self.remotes else time.sleep)
        self.events = self.arrived = 0
        self.now = self.zero = 0.0
        self._moments: list[Moment] = []
        self._numbers = count()
        self._turns: dict[int, Any] = {}
        runtime.attach(executors)
        for executor in executors:
            connect = getattr(executor, "connect", None)
            if connect is not None:
                connect(self)

    def at(self, time: float, action: Callable[[], None], order: int = ARRIVAL) -> None:
        """Call `action` as soon as possible after `time`, then let servers react."""
        self._plan_moment(time, order, lambda _: action())

    def run(self, items: Iterator[Item], until: float = inf) -> float:
        """Run until nothing is left to happen (or `until`); returns the seconds that took."""
        self.items = items
        self.zero = self.clock()
        self._next_arrival()
        while self._look() < until and (self._work() or self._rest(until)):
            pass
        if self.runtime.flows and until == inf:
            raise PolicyError(self.runtime.stuck())
        self.runtime.abandon(self.now)
        return self.now

    def _look(self) -> float:
        """Read the clock, and let happen what is due: ends of plans first."""
        now = self.now = self.clock() - self.zero
        for index, executor in self.remotes.items():
            self._hear(index, executor, now)
        while (moment := self._next()) is not None and moment.at <= now:
            if moment.order != TIMER:
                heappop(self._moments)
            self.events += 1
            moment.action(now)
        self._collect()
        return now

    def _hear(self, index: int, executor: Remote, now: float) -> None:
        """What became of the plan or the workers of one replica."""
        server = self.runtime.servers[index]
        match executor.hear():
            case "over":
                self.events += 1
                plan = server.flights[0]
                self.runtime.finish(plan, self.executors[index].finish(plan, now), now)
            case "idle":
                self.runtime.touched.append(server)
            case "down":
                self.runtime.server_down(index, now)
            case "up":
                self.runtime.server_up(index, now)

    def _next(self) -> Moment | None:
        """What happens next: an arrival, a call of the user's or a timer of the runtime."""
        first = self._moments[0] if self._moments else None
        timer = Moment(self.runtime.wakeup(), TIMER, -1, self.runtime.tick)
        return timer if timer.at < inf and (first is None or timer[:2] < first[:2]) else first

    def _work(self) -> bool:
        """Launch what can be launched, and run one plan of the server in this process whose turn it is; False if there
        is none."""
        while self._turns:
            server = self._turns.pop(next(iter(self._turns)))
            remote = self.remotes.get(server.index)
            if remote is not None and (remote.busy or server.flights):
                continue
            plan = self.runtime.plan(server, self.now)
            if plan is None:
                continue
            if remote is not None:
                remote.launch(plan, self.now)
                continue
            executor = self.executors[server.index]
            plan.end = executor.start(plan, self.now)
            now = self.now = self.clock() - self.zero
            self.events += 1
            self.runtime.finish(plan, executor.finish(plan, now), now)
            self._collect()
            return True
        return False

    def _rest(self, until: float) -> bool:
        """Sleep until the next moment, or until a worker is heard of; False if there is nothing to wait for."""
        moment = self._next()
        if moment is None and not any(executor.busy for executor in self.remotes.values()):
            return False
        at = min(moment.at if moment is not None else inf, until)
        seconds = max(0.0, at - (self.clock() - self.zero))
        self.sleep(min(seconds, LISTEN_S) if self.remotes else seconds)
        return True

    def _listen(self, seconds: float) -> None:
        """Wait until a worker has said something, or is late, at most so long."""
        due = min(executor.due for executor in self.remotes.values()) - perf_counter()
        channels = [channel for executor in self.remotes.values() for channel in executor.channels]
        wait(channels, max(0.0, min(seconds, due)))

    def _collect(self) -> None:
        """Servers the runtime touched queue up for a turn. What is in flight is one pass: there is nothing to cut."""
        for server in self.runtime.touched:
            server.cut_wanted = False
            self._turns.setdefault(server.index, server)
        self.runtime.touched.clear()

    def _plan_moment(self, at: float, order: int, action: Callable[[float], None]) -> None:
        heappush(self._moments, Moment(at, order, next(self._numbers), action))

    def _next_arrival(self) -> None:
        item = next(self.items, None)
        if item is not None:
            self._plan_moment(item.request.arrival, ARRIVAL, lambda now: self._arrive(item, now))

    def _arrive(self, item: Item, now: float) -> None:
        self.arrived += 1
        if self.learn is not None:
            self.learn(item)
        self._next_arrival()
        self.runtime.arrive(item.request, now)
        if self.report is not None:
            self.report(self.arrived, now)

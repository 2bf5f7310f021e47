"""The wall driver: the same runtime in real time, for true open-loop runs (no simpy, no threads)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from heapq import heappop, heappush
from itertools import count
from math import inf
from time import perf_counter, sleep
from typing import Any, NamedTuple

from airi_sim.core.errors import PolicyError
from airi_sim.core.order import ARRIVAL, TIMER
from airi_sim.core.protocols import Executor
from airi_sim.core.types import Item
from airi_sim.runtime.runtime import Runtime


class Moment(NamedTuple):
    """Something that happens at a set time; ties as in every driver (core.order)."""

    at: float
    order: int
    number: int
    action: Callable[[float], object]


class WallDriver:
    """Runs a workload in real time: built and run like the SimPy driver, for executors whose `start` blocks.

    Everything happens in one thread. Arrivals and timers are polled between plans, so what comes while a plan runs
    is heard of when it ends: the runtime then gets the time of hearing, while `request.arrival` stays the intended
    moment, from which TTFT counts (open loop; with `workload.concurrency` the runtime sets arrivals, as everywhere).
    With nothing to run it sleeps until the next moment. Several replicas share the one device: their plans run one
    after the other, servers taking turns, so `n` replicas do not work at the same time here, unlike under the work
    clock.

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
        sleep: Callable[[float], None] = sleep,
    ) -> None:
        self.runtime, self.executors = runtime, executors
        self.learn, self.report = learn, progress
        self.clock, self.sleep = clock, sleep
        self.events = self.arrived = 0
        self.now = self.zero = 0.0
        self._moments: list[Moment] = []
        self._numbers = count()
        self._turns: dict[int, Any] = {}
        runtime.attach(executors)

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
        """Read the clock, and let happen what is due."""
        now = self.now = self.clock() - self.zero
        while (moment := self._next()) is not None and moment.at <= now:
            if moment.order != TIMER:
                heappop(self._moments)
            self.events += 1
            moment.action(now)
        self._collect()
        return now

    def _next(self) -> Moment | None:
        """What happens next: an arrival, a call of the user's or a timer of the runtime."""
        first = self._moments[0] if self._moments else None
        timer = Moment(self.runtime.wakeup(), TIMER, -1, self.runtime.tick)
        return timer if timer.at < inf and (first is None or timer[:2] < first[:2]) else first

    def _work(self) -> bool:
        """Run one plan of the server whose turn it is; False if no server has anything to run."""
        while self._turns:
            server = self._turns.pop(next(iter(self._turns)))
            plan = self.runtime.plan(server, self.now)
            if plan is None:
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
        """Sleep until the next moment; False if there is none."""
        moment = self._next()
        if moment is None:
            return False
        self.sleep(max(0.0, min(moment.at, until) - (self.clock() - self.zero)))
        return True

    def _collect(self) -> None:
        """Servers the runtime touched queue up for a turn; nothing is in flight, so there is nothing to cut."""
        for server in self.runtime.touched:
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

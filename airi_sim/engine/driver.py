"""The SimPy driver: what happens next, a plan that ends, a timer or an arrival, and what the runtime makes of it.

One entry of SimPy's calendar a plan, never a process or a resource per request or token (docs/design.md, decision 3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from heapq import heappop, heappush
from math import inf
from typing import Any

from simpy.core import Environment
from simpy.events import Event

from airi_sim.core.errors import PolicyError
from airi_sim.core.order import ARRIVAL, COMPLETION, TIMER
from airi_sim.core.protocols import Executor
from airi_sim.core.types import Item, Plan
from airi_sim.runtime.runtime import Runtime


class At(Event):
    """An event at an absolute time; SimPy's own timeouts are relative and lose bits. Made by `Driver.at` only: a
    class without a constructor in Python is built without entering the interpreter anew."""

    __init__ = object.__init__


class Calendar(Environment):
    """SimPy's environment, whose time is that of the driver, so that processes of a user's own can be woken by what
    happens there. Read only when asked: the driver need not set it."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        super().__init__()

    @property
    def _now(self) -> float:
        return max(self._event_s, self._driver.now)

    @_now.setter
    def _now(self, now: float) -> None:
        self._event_s = now


BEFORE_ALL = -1
"""Order of the end of a run: nothing happens at that moment any more."""


class Driver:
    """Runs a workload through a runtime; `executors[i]` runs the plans of server i.

    `learn` is told of every row before the runtime is. `at(time, action)` schedules a call of the user's (faults,
    cancellations).
    """

    def __init__(
        self,
        runtime: Runtime,
        executors: Sequence[Executor],
        *,
        learn: Callable[[Item], None] | None = None,
        progress: Callable[[int, float], None] | None = None,
    ) -> None:
        self.runtime, self.executors = runtime, executors
        self.learn = learn
        self.report = progress
        self.report_every = (
            1 if any(executor.detailed for executor in executors) else 256
        )  # arrivals: measuring is slow
        self.now = 0.0
        self.env = Calendar(self)
        self.touched, self.lines = runtime.touched, runtime.lines
        self.ended: Plan | None = None
        self.starts = [executor.start for executor in executors]
        self.finishes = [executor.finish for executor in executors]
        self.events = self.arrived = 0
        self.coming = inf
        runtime.attach(executors)
        for executor in executors:
            connect = getattr(executor, "connect", None)
            if connect is not None:
                connect(self)

    def at(self, time: float, action: Callable[[], None], order: int = ARRIVAL) -> None:
        """Call `action` at `time`, then let servers react."""

        def fire(_: Any) -> None:
            action()
            self._react(time)

        event = At()
        event.callbacks = [fire]
        event._value, event._ok = None, True
        self._enter(time, order, event)

    def _enter(self, time: float, order: int, what: Event | Plan | None) -> None:
        """Put an event, the end of a plan, or (None) the end of the run on SimPy's calendar."""
        heappush(self.env._queue, (time, order, next(self.env._eid), what))  # type: ignore[misc]

    def run(self, items: Iterator[Item], until: float = inf) -> float:
        """Run until nothing is left to happen (or `until`); returns the time of the last event."""
        self.items = items
        self.finish = self.runtime.finish  # looked up once: it is dear
        self.item = first = next(items, None)
        self.coming = inf if first is None else first[0].arrival
        self._loop(until)
        if until < inf:
            self.now = until
        elif self.runtime.flows:
            raise PolicyError(self.runtime.stuck())
        self.runtime.abandon(self.now)
        return self.now

    def _loop(self, until: float) -> None:
        """SimPy's loop, in one piece: the ends of plans lie on its calendar as they are, without an event around them,
        and arrivals and timers, which come in order by themselves, beside it."""
        runtime, queue, finish, finishes = self.runtime, self.env._queue, self.finish, self.finishes
        self._enter(until, BEFORE_ALL, None)
        while True:
            head = queue[0]
            now, timer, arrival = head[0], runtime.due, self.coming
            if timer <= now and timer <= arrival and (timer < now or head[1] > TIMER):
                self._tick(timer)
            elif arrival <= now and (arrival < now or head[1] > ARRIVAL):
                self._arrive(arrival)
            else:
                heappop(queue)
                what: Any = head[3]
                if isinstance(what, Plan):
                    if what.end != now:  # it was cut
                        continue
                    self.ended = what
                    if what.live:  # else its server died
                        self.now = now
                        self.events += 1
                        finish(what, finishes[what.server](what, now), now)
                    self._react(now)
                elif what is None:
                    return
                else:
                    self._happen(what, now)

    def _happen(self, event: Any, now: float) -> None:
        """What SimPy does with an event whose time has come."""
        self.env._now = now
        callbacks, event.callbacks = event.callbacks, None
        for callback in callbacks:
            callback(event)
        if not event._ok and not hasattr(event, "_defused"):
            raise event._value

    def _arrive(self, now: float) -> None:
        item = self.item
        assert item is not None
        self.now = now
        self.events += 1
        self.arrived += 1
        learn = self.learn
        if learn is not None:
            learn(item)
        self.item = following = next(self.items, None)
        self.coming = inf if following is None else following[0].arrival
        self.runtime.arrive(item[0], now)
        if self.touched:
            self._react(now)
        if self.report is not None and not self.arrived % self.report_every:
            self.report(self.arrived, now)

    def _tick(self, now: float) -> None:
        before, self.now = self.now, now
        self.events += 1
        if not self.runtime.tick(now):
            self.now = before
        if self.touched:
            self._react(now)

    def _react(self, now: float) -> None:
        """Cut and start what the runtime touched; `Runtime.plan` in pieces, because this is done for every plan."""
        env, lines = self.env, self.lines
        for server in self.touched:
            if server.cut_wanted:
                self._cut(server, now)
            flights, depth = server.flights, server.depth
            while len(flights) < depth:
                if lines:
                    self.runtime.board(server, now)
                plan = server.plan(now)
                if plan is None:
                    self.runtime.rest(server, now)
                    break
                plan.end = end = self.starts[plan.server](plan, now)
                heappush(env._queue, (end, COMPLETION, next(env._eid), plan))  # type: ignore[misc]
        self.touched.clear()

    def _cut(self, server: Any, now: float) -> None:
        more, server.cut_wanted = server.cut_wanted - 1, 0
        for plan in server.flights:
            end = self.executors[plan.server].cut(plan, now, more)
            if end is not None:
                self.retime(plan, end)

    def retime(self, plan: Plan, end: float) -> None:
        """A plan in flight ends at another time than its executor said first."""
        plan.end = end
        heappush(self.env._queue, (end, COMPLETION, next(self.env._eid), plan))  # type: ignore[misc]

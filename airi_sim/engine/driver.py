"""The SimPy driver: puts the ends of plans, timers and arrivals on SimPy's calendar and calls the runtime.

One event a plan at an absolute time, never a process or a resource per request or token (docs/design.md, decision 3).
"""

from __future__ import annotations

from collections import deque
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


class Device:
    """An accelerator several servers share: one plan at a time, in the order of asking. Whoever runs equal passes is
    cut at the next one when somebody asks."""

    def __init__(self) -> None:
        self.plan: Plan | None = None
        self.line: deque[Any] = deque()


class Driver:
    """Runs a workload through a runtime; `executors[i]` runs the plans of server i.

    `devices[i]` is the accelerator of server i when it is shared (None: its own). `learn` is told of every row before
    the runtime is. `at(time, action)` schedules a call of the user's (faults, cancellations).
    """

    def __init__(
        self,
        runtime: Runtime,
        executors: Sequence[Executor],
        *,
        learn: Callable[[Item], None] | None = None,
        devices: Sequence[Device | None] | None = None,
        progress: Callable[[int, float], None] | None = None,
    ) -> None:
        self.runtime, self.executors = runtime, executors
        self.learn = learn
        self.devices = devices
        self.report = progress
        self.report_every = (
            1 if any(executor.detailed for executor in executors) else 256
        )  # arrivals: measuring is slow
        self.now = 0.0
        self.env = Calendar(self)
        self.touched = runtime.touched
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
        self._next_arrival()
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
        runtime, queue = self.runtime, self.env._queue
        self._enter(until, BEFORE_ALL, None)
        while True:
            head = queue[0]
            now, timer, arrival = head[0], runtime.due, self.coming
            if timer < now and timer <= arrival:
                self._tick(timer)
            elif arrival < now:
                self._arrive(arrival)
            elif not ((timer == now or arrival == now) and self._tied(head)):
                heappop(queue)
                what: Any = head[3]
                if isinstance(what, Plan):
                    if what.end == now:  # else it was cut
                        self._done(what, now)
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

    def _tied(self, head: tuple[Any, ...]) -> bool:
        """A timer or an arrival is due at the moment of `head` of the calendar: let it happen if it goes before it."""
        now, order = head[:2]
        if self.runtime.due == now and order > TIMER:
            self._tick(now)
        elif self.coming == now and order > ARRIVAL:
            self._arrive(now)
        else:
            return False
        return True

    def _next_arrival(self) -> None:
        self.item = item = next(self.items, None)
        self.coming = inf if item is None else item[0].arrival

    def _arrive(self, now: float) -> None:
        item = self.item
        assert item is not None
        self.now = now
        self.events += 1
        self.arrived += 1
        learn = self.learn
        if learn is not None:
            learn(item)
        self._next_arrival()
        self.runtime.arrive(item[0], now)
        if self.touched:
            self._react(now)
        if self.report is not None and not self.arrived % self.report_every:
            self.report(self.arrived, now)

    def _tick(self, now: float) -> None:
        self.env._now = now
        self.events += 1
        if self.runtime.tick(now):
            self.now = now
        if self.touched:
            self._react(now)

    def _done(self, plan: Plan, now: float) -> None:
        if not plan.live:  # its server died; what runs on the accelerator runs to its end
            if self.devices is not None:
                self._release(plan.server)
                self._react(now)
            return
        self.now = now
        self.events += 1
        self.runtime.finish(plan, self.finishes[plan.server](plan, now), now)
        if self.devices is not None:
            self._release(plan.server)
        self._react(now)

    def _react(self, now: float) -> None:
        """Cut and start what the runtime touched."""
        if self.devices is not None:
            self._take_turns(now)
        ask, env = self.runtime.plan, self.env
        for server in self.touched:
            if server.cut_wanted:
                self._cut(server, now)
            while len(server.flights) < server.depth:
                plan = ask(server, now)
                if plan is None:
                    break
                plan.end = end = self.starts[plan.server](plan, now)
                heappush(env._queue, (end, COMPLETION, next(env._eid), plan))  # type: ignore[misc]
        self.touched.clear()

    def _cut(self, server: Any, now: float) -> None:
        more, server.cut_wanted = server.cut_wanted - 1, 0
        for plan in server.flights:
            self._end_early(plan, now, more)

    def _end_early(self, plan: Plan, now: float, more: int = 0) -> None:
        end = self.executors[plan.server].cut(plan, now, more)
        if end is not None:
            self.retime(plan, end)

    def retime(self, plan: Plan, end: float) -> None:
        """A plan in flight ends at another time than its executor said first."""
        plan.end = end
        self._enter(end, COMPLETION, plan)

    # -- shared accelerators

    def _take_turns(self, now: float) -> None:
        """Cut and start what was touched on shared accelerators; the others are left to `_react`."""
        assert self.devices is not None
        touched = self.touched
        alone = []
        for server in touched:  # grows while it is walked
            device = self.devices[server.index]
            if device is None:
                alone.append(server)
                continue
            if server.cut_wanted:
                self._cut(server, now)
            if not server.up:
                self._shorten(device, now)
            if len(server.flights) < server.depth:
                self._start_shared(device, server, now)
        touched[:] = alone

    def _start_shared(self, device: Device, server: Any, now: float) -> None:
        while len(server.flights) < server.depth and self._granted(device, server, now):
            plan = self.runtime.plan(server, now)
            if plan is None:
                self._pass_on(device)
                return
            plan.end = end = self.starts[plan.server](plan, now)
            self._enter(end, COMPLETION, plan)
            device.plan = plan
            if device.line:
                self._shorten(device, now)

    def _granted(self, device: Device, server: Any, now: float) -> bool:
        """Whether it is this server's turn; else it stands in line, and whoever runs is cut."""
        if device.plan is None and (not device.line or device.line[0] is server):
            if device.line:
                device.line.popleft()
            return True
        if server not in device.line and (server.jobs or server.adopted):
            device.line.append(server)
        self._shorten(device, now)
        return False

    def _shorten(self, device: Device, now: float) -> None:
        """What runs ends with the pass in flight: somebody waits, or its server died."""
        if device.plan is not None:
            self._end_early(device.plan, now)

    def _release(self, index: int) -> None:
        """A plan on a shared accelerator is over."""
        device = self.devices[index] if self.devices is not None else None
        if device is not None:
            device.plan = None
            if device.line:  # before whoever just ran
                self.runtime.touched.insert(0, device.line[0])

    def _pass_on(self, device: Device) -> None:
        """Who has nothing to run leaves the turn to the next in line."""
        if device.line:
            self.runtime.touched.append(device.line[0])

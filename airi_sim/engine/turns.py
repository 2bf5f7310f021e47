"""Servers that share an accelerator take turns there."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from airi_sim.core.order import COMPLETION
from airi_sim.core.protocols import Executor
from airi_sim.core.types import Plan
from airi_sim.engine.driver import Driver
from airi_sim.runtime.runtime import Runtime


class Device:
    """An accelerator several servers share: one plan at a time, in the order of asking. Whoever runs equal passes is
    cut at the next one when somebody asks."""

    def __init__(self) -> None:
        self.plan: Plan | None = None
        self.line: deque[Any] = deque()


class TurnsDriver(Driver):
    """A Driver some of whose servers share accelerators: `devices[i]` is that of server i (None: one of its own)."""

    def __init__(
        self, runtime: Runtime, executors: Sequence[Executor], *, devices: Sequence[Device | None], **more: Any
    ) -> None:
        super().__init__(runtime, executors, **more)
        self.devices = devices

    def _react(self, now: float) -> None:
        """Cut and start what was touched on shared accelerators, then the others."""
        if self.ended is not None:  # to its end, even if its server died
            self._release(self.ended.server)
            self.ended = None
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
        super()._react(now)

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
        if server not in device.line and server.jobs:
            device.line.append(server)
        self._shorten(device, now)
        return False

    def _shorten(self, device: Device, now: float) -> None:
        """What runs ends with the pass in flight: somebody waits, or its server died."""
        plan = device.plan
        end = self.executors[plan.server].cut(plan, now) if plan is not None else None
        if plan is not None and end is not None:
            self.retime(plan, end)

    def _release(self, index: int) -> None:
        """A plan on a shared accelerator is over."""
        device = self.devices[index]
        if device is not None:
            device.plan = None
            if device.line:  # before whoever just ran
                self.runtime.touched.insert(0, device.line[0])

    def _pass_on(self, device: Device) -> None:
        """Who has nothing to run leaves the turn to the next in line."""
        if device.line:
            self.runtime.touched.append(device.line[0])

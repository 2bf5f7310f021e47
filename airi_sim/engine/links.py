"""Links in the simulated world: moves are flows that share wires max-min fairly (hardware.sharing).

The driver asks an executor once when a plan ends. A flow's end moves when others begin or end, so the executor of a
link tells the driver (`Driver.retime`). A run without links has none of this.
"""

from __future__ import annotations

from math import inf
from typing import Any

from airi_sim.core.order import COMPLETION
from airi_sim.core.types import Outcome, Plan
from airi_sim.hardware.network import Route, Topology
from airi_sim.hardware.sharing import Flow, Sharing


class Transit(Flow):
    """The flow of one plan; it is there `latency` seconds after its last byte was sent."""

    __slots__ = ("latency", "plan")

    def __init__(self, route: Route, size: float, plan: Plan) -> None:
        super().__init__(route.wires, size)
        self.latency = route.latency_s
        self.plan = plan


class LinkExecutor:
    """Runs the plans of a Link whose moves say which `way` they go through the `topology`.

    With `layers` above 0 KV is sent layer by layer while the prompt is still computed: only what the narrowest wire
    could not send in that time is left, at least the last layer. What is sent ahead is not seen by other flows.
    """

    detailed = False

    def __init__(self, topology: Topology, layers: int = 0) -> None:
        self.topology = topology
        self.layers = layers
        self.sharing = Sharing(topology.rates)
        self.armed = inf
        self.driver: Any = None

    def connect(self, driver: Any) -> None:
        """Called once, by the driver that is to be told when ends move."""
        self.driver = driver

    def start(self, plan: Plan, now: float) -> float:
        move = plan.slices[0][0]
        route = self.topology.route(*move.way)
        transit = Transit(route, self._left(move, route), plan)
        self._retime([flow for flow in self.sharing.begin(transit, now) if flow is not transit])
        self._arm()
        return transit.end + transit.latency

    def cut(self, plan: Plan, now: float, more: int = 0) -> float | None:
        return None

    def progress(self, plan: Plan, now: float) -> int:
        return 0

    def finish(self, plan: Plan, now: float) -> Outcome:
        return Outcome(1, [job for job, _ in plan.slices], now - plan.start)

    def _left(self, move: Any, route: Route) -> float:
        """Bytes still to be sent when the move begins."""
        size = float(move.tokens)
        if not self.layers:
            return size
        return max(size / self.layers, size - route.rate * move.ahead_s)

    def _retime(self, moved: list[Any]) -> None:
        for transit in moved:
            end = transit.end + transit.latency
            if end != transit.plan.end:
                self.driver.retime(transit.plan, end)

    def _arm(self) -> None:
        """Be called when the next flow has sent its last byte."""
        at = self.sharing.wakeup()
        if at < self.armed:
            self.armed = at
            self.driver.at(at, lambda: self._settle(at), COMPLETION)

    def _settle(self, now: float) -> None:
        if now == self.armed:
            self.armed = inf
        self._retime(self.sharing.settle(now))
        self._arm()

"""Where executors come from in the simulated world. The measured one has the same shape in `real_backend`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from airi_sim.core.protocols import CostModel, Executor, Script
from airi_sim.engine.copies import CopyingExecutor
from airi_sim.engine.executors import CostExecutor, ReplayExecutor, ServiceExecutor, Stops
from airi_sim.engine.speculation import SpeculativeExecutor, Turns, turns
from airi_sim.hardware.choose import cost_model
from airi_sim.hardware.deployment import Deployment
from airi_sim.hardware.storage import copy_cost


class Backend(Protocol):
    """Makes the executor of each replica. `source` goes into the tables; `detailed`: plans must carry rows. Where
    `edges` is true, requests take the API path of the serving engine and its scheduler may work a pass ahead."""

    source: str
    detailed: bool

    def executor(self, deployment: Deployment, replica: int, script: Script) -> Executor: ...


class SimBackend:
    """Durations from cost models, one per pool: its replicas share what has been tabulated."""

    source = "sim"
    detailed = False
    edges = True

    def __init__(self) -> None:
        self.costs: dict[str, tuple[Deployment, CostModel]] = {}

    def executor(self, deployment: Deployment, replica: int, script: Script) -> Executor:
        known = self.costs.get(deployment.name)
        if known is None or known[0] is not deployment:
            known = self.costs[deployment.name] = (deployment, cost_model(deployment))
        cost = known[1]
        if deployment.kind != "generate":
            return ServiceExecutor(cost)
        if deployment.speculation is not None:
            return SpeculativeExecutor(cost, turns(deployment.speculation, script))
        return CopyingExecutor(cost, script, copy_cost(deployment)) if deployment.copies else CostExecutor(cost, script)


class ReplayBackend:
    """Durations as recorded: by server name, in the order in which its plans began."""

    source = "sim"
    detailed = False

    def __init__(self, durations: Mapping[str, Sequence[float]]) -> None:
        self.durations = durations

    def executor(self, deployment: Deployment, replica: int, script: Script) -> Executor:
        name = server_name(deployment.name, replica)
        stops = stops_of(deployment, script) if deployment.kind == "generate" else None
        return ReplayExecutor(name, iter(self.durations.get(name, ())), stops)


def stops_of(deployment: Deployment, script: Script) -> Stops | Turns:
    """Who stops when in the pool of a deployment."""
    return Stops(script) if deployment.speculation is None else turns(deployment.speculation, script)


def server_name(pool: str, replica: int) -> str:
    """Names of servers in tables and messages."""
    return f"{pool}/{replica}"

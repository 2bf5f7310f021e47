"""Where executors come from in the simulated world. The measured one has the same shape in `real_backend`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from airi_sim.core.protocols import Executor, Script
from airi_sim.engine.executors import CostExecutor, ReplayExecutor, ServiceExecutor, Stops
from airi_sim.hardware.choose import cost_model
from airi_sim.hardware.deployment import Deployment


class Backend(Protocol):
    """Makes the executor of each replica. `source` goes into the tables; `detailed`: plans must carry rows. Where
    `edges` is true, requests take the API path of the serving engine and its scheduler may work a pass ahead."""

    source: str
    detailed: bool

    def executor(self, deployment: Deployment, replica: int, script: Script) -> Executor: ...


class SimBackend:
    """Durations from cost models, one per pool."""

    source = "sim"
    detailed = False
    edges = True

    def executor(self, deployment: Deployment, replica: int, script: Script) -> Executor:
        cost = cost_model(deployment)
        return CostExecutor(cost, script) if deployment.kind == "generate" else ServiceExecutor(cost)


class ReplayBackend:
    """Durations as recorded: by server name, in the order in which its plans began."""

    source = "sim"
    detailed = False

    def __init__(self, durations: Mapping[str, Sequence[float]]) -> None:
        self.durations = durations

    def executor(self, deployment: Deployment, replica: int, script: Script) -> Executor:
        name = server_name(deployment.name, replica)
        stops = Stops(script) if deployment.kind == "generate" else None
        return ReplayExecutor(name, iter(self.durations.get(name, ())), stops)


def server_name(pool: str, replica: int) -> str:
    """Names of servers in tables and messages."""
    return f"{pool}/{replica}"

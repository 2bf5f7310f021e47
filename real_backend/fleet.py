"""Which replicas live in worker processes, and those processes."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import torch

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import Script
from airi_sim.hardware.deployment import Deployment
from real_backend import parallel
from real_backend.calibrate import Probe
from real_backend.channel import Task
from real_backend.executor import GenerateWork, Record
from real_backend.kinds import Parts, generate_limits
from real_backend.remote import OpenExecutor, RemoteExecutor, RemoteProbe, RemoteRunner
from real_backend.workers import Crew

AUTO = "auto"


class Fleet:
    """The crews of a backend.

    workers   auto: a process for each rank where a replica has several, or the machine several CUDA devices, else none;
              0: everything in the runtime's process; n: all that generate, at most n processes
    hang_s    a worker that is silent for so long during a pass is lost
    restart   a lost worker is replaced
    """

    def __init__(self, parts: Parts, clock: str, workers: str | int, hang_s: float, restart: bool) -> None:
        if workers != AUTO and not (isinstance(workers, int) and workers >= 0):
            raise BadInput(f"backend.workers is {workers!r}: give auto, or a whole number of processes from 0.")
        if not 0 < hang_s < inf:
            raise BadInput(f"backend.hang_s is {hang_s}: give seconds above 0, and finite.")
        self.parts, self.clock = parts, clock
        self.workers, self.hang_s, self.restart = workers, hang_s, restart
        self.incidents: list[str] = []
        self._crews: dict[tuple[str, int], Crew] = {}
        self._wanted: dict[str, int] = {}
        self._cards = 0
        self._several = parts.library.device.type == "cuda" and torch.cuda.device_count() > 1

    def takes(self, deployment: Deployment) -> bool:
        """Whether the replicas of a pool live in worker processes; BadInput if they must and may not."""
        wanted = self._several if self.workers == AUTO else self.workers != 0
        if deployment.kind != "generate" or not (wanted or deployment.tp > 1):
            return False
        if self.workers == 0:
            raise BadInput(
                f"pool '{deployment.name}' has tp={deployment.tp}, which takes a worker process for each rank: leave "
                "backend.workers=auto, or set pool.tp=1."
            )
        for feature, present in (("speculates", deployment.speculation), ("shares its devices", deployment.devices)):
            if present:
                raise BadInput(
                    f"pool '{deployment.name}' {feature}, which worker processes cannot do: set backend.workers=0"
                    f"{' and pool.tp=1' * (deployment.tp > 1)}."
                )
        return True

    def executor(
        self, deployment: Deployment, replica: int, script: Script, record: Record, probe: Callable[[], Probe] | None
    ) -> RemoteExecutor:
        """The executor of a replica, whose processes begin to load now."""
        crew = self._crew(deployment, replica)
        runner: Any = RemoteRunner(crew, 0)
        make = OpenExecutor if self.clock == "wall" else RemoteExecutor
        work = GenerateWork(runner, script, self.parts.sequences)
        return make(work, crew, record, self.incidents.append, restart=self.restart, probe=probe)

    def probe(self, deployment: Deployment) -> Probe:
        """What takes calibration samples in the workers of a pool's first replica; waits until they have loaded."""
        crew = self._crew(deployment, 0)
        crew.ready()
        runner: Any = RemoteRunner(crew, 1)
        limits = generate_limits(self.parts.library, deployment)
        return RemoteProbe(runner, self.parts.timer, limits, self.parts.seed)

    def end(self) -> None:
        """No process is left."""
        for crew in self._crews.values():
            crew.end()
        self._crews.clear()

    def _crew(self, deployment: Deployment, replica: int) -> Crew:
        key = deployment.name, replica
        if key not in self._crews:
            self._check(deployment)
            crew = Crew(f"{deployment.name}/{replica}", self._tasks(deployment, replica), self.hang_s)
            self._crews[key] = crew
            crew.begin()
        return self._crews[key]

    def _check(self, deployment: Deployment) -> None:
        if deployment.kv_blocks < 1 or deployment.model is None:
            self.parts.library.runner(deployment, 0)  # says what is missing
        if deployment.tp > 1:
            parallel.check(self.parts.library.spec(deployment), deployment.tp, deployment.name)
        self._wanted[deployment.name] = deployment.replicas * deployment.tp
        needed = sum(self._wanted.values())
        if self.workers != AUTO and needed > int(self.workers):
            raise BadInput(
                f"backend.workers={self.workers}, but the replicas up to pool '{deployment.name}' take {needed} "
                f"processes: set backend.workers={needed} or more."
            )

    def _tasks(self, deployment: Deployment, replica: int) -> list[Task]:
        library = self.parts.library
        limits = generate_limits(library, deployment)
        pool = Deployment(
            deployment.name, "generate", deployment.model, block_size=deployment.block_size, kv_blocks=limits.blocks
        )
        caches = (limits.blocks, deployment.swap_blocks), (library.scratch_blocks(deployment, limits.blocks), 0)
        first, cards = self._cards, torch.cuda.device_count() or 1
        self._cards += deployment.tp
        return [
            Task(
                pool, library.device.type, (first + rank) % cards, library.precision, library.seed, library.weights,
                self.clock, caches, rank, deployment.tp, attention=library.attention[0],
            )
            for rank in range(deployment.tp)
        ]  # fmt: skip

"""A pool: the replicas of one deployment, the router in front of them, and what the control plane sees of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from airi_sim.core.errors import PolicyError
from airi_sim.core.protocols import Router
from airi_sim.runtime.job import LiveJob
from airi_sim.runtime.view import Board


@dataclass
class Pool:
    """Replicas that serve one `kind` of job (generate, embed, search, ...) of one `model` ("" for services). Those of
    `role` prefill hand their jobs on once the prompt is done, those of role decode are given jobs only that way."""

    name: str
    kind: str
    model: str
    servers: Sequence[Any]
    router: Router
    board: Board
    router_name: str = ""
    role: str = "both"

    def __post_init__(self) -> None:
        self.router_name = type(self.router).__name__
        for i, server in enumerate(self.servers):
            server.slot, server.changed = i, self.board.changed

    def serves(self, job: LiveJob) -> bool:
        """Whether a job of that kind and model may begin here."""
        if self.role == "decode":
            return False
        return job.kind == self.kind and (not job.model or not self.model or job.model == self.model)

    def route(self, job: LiveJob, now: float) -> Any:
        """The replica the router chose. One that is down refuses the connection: the next one that is up takes it."""
        choice = self.router.route(job, self.board, now)
        try:
            server = self.servers[choice] if choice >= 0 else None
        except (TypeError, IndexError):
            server = None
        if server is None:
            raise PolicyError(
                f"policy {self.router_name} sent job {job.id} to replica {choice!r} of pool '{self.name}': it must "
                f"return an index from 0 to {len(self.servers) - 1}."
            )
        if not server.up:
            server = self._next_up(int(choice))
        if job.prefix and server is not None:
            self.board.routed(server.slot, job)
        return server

    def _next_up(self, after: int) -> Any:
        n = len(self.servers)
        ring = [self.servers[(after + k) % n] for k in range(1, n)]
        return next((server for server in ring if server.up), None)

    def changed(self, server: Any) -> None:
        """The columns of a server are to be fetched anew."""
        self.board.changed.add(server.slot)

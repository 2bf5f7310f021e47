"""Which pool (model and version) serves a job."""

from __future__ import annotations

from collections.abc import Mapping

from airi_sim.core.protocols import View
from airi_sim.core.types import Job


class Fixed:
    """The pool named `pool` wherever it can serve the job, else the first that can."""

    def __init__(self, pool: str | None = None) -> None:
        self.pool = pool

    def choose(self, job: Job, pools: Mapping[str, View], now: float) -> str:
        if self.pool is not None and self.pool in pools:
            return self.pool
        return next(iter(pools))

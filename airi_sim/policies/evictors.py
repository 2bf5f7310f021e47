"""Whose memory goes when a block is missing. `running` is in order of admission, so both rules are O(1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from airi_sim.core.types import Job


class LastIn:
    """The job admitted last: it has done the least and loses the least, and the oldest always finishes (vLLM)."""

    def victim(self, running: Mapping[int, Job], now: float) -> Job:
        newest_first = reversed(cast("dict[int, Job]", running).values())  # Mapping promises no reversed(), dict does
        return next(newest_first)


class Lru:
    """The job admitted longest ago. All running jobs are served in every pass, so admission is the only use that
    differs between them. A control: it throws away the most work, and shows what LastIn is worth."""

    def victim(self, running: Mapping[int, Job], now: float) -> Job:
        return next(iter(running.values()))

"""Whose memory goes when a block is missing. `running` is in order of admission, so both rules are O(1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from airi_sim.core.errors import BadInput
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


class SwapLong(LastIn):
    """LastIn that swaps jobs with at least `least` tokens in memory to the host and lets shorter ones be computed again
    (what a swap costs beside its bytes is the same for all, while a short prompt goes along with a pass that runs
    anyway). Needs `server.swap_bytes`; the other evictors swap every victim there."""

    def __init__(self, least: int = 256) -> None:
        if least < 0:
            raise BadInput(f"policy.evictor.least={least}: it is a number of tokens, 0 or more.")
        self.least = least

    def swaps(self, job: Job, tokens: int, now: float) -> bool:
        return tokens >= self.least

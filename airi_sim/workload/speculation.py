"""Which drafted tokens are accepted, for executors that do not draft themselves (law 2).

Whether the target agrees with the draft at a place of an output is a property of that place: each draft starts from the
accepted tokens before it. So it is the same however passes fall, with and without fast-forward, and after a preemption.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from airi_sim.core.errors import BadInput
from airi_sim.core.types import Job
from airi_sim.workload.script import uniforms

PIECE = 256
"""Places of an output that are drawn at once."""
_OWN = np.array([0x5BEC])
"""So that nothing else that is drawn from the seed is drawn alike."""


class Acceptance:
    """Each drafted token is accepted with probability `rate`, by a draw of its own from the seed, the job and its place
    in the output; a draft ends at the first one that is not (Leviathan et al. 2023, section 3.1).

    `recorded` is what a measured run found, {job id: {place: drafted tokens accepted there}}, and goes before the draw.
    """

    def __init__(self, rate: float, seed: int = 0, recorded: Mapping[int, Mapping[int, int]] | None = None) -> None:
        self.rate = rate
        self.seed = seed
        self.recorded = recorded or {}
        self._drawn: dict[int, list[int]] = {}

    def accepted(self, job: Job, place: int, drafted: int) -> int:
        """How many of `drafted` tokens are accepted when the first would be output token number `place` (from 0)."""
        known = self.recorded.get(job.id)
        if known is not None and place in known:
            return min(known[place], drafted)
        runs = self._drawn.get(job.id)
        if runs is None or len(runs) < place + drafted:
            runs = self._drawn[job.id] = self._runs(job.id, place + drafted)
        return min(runs[place], drafted)

    def forget(self, job: int) -> None:
        """A job (by id) is over."""
        self._drawn.pop(job, None)

    def _runs(self, job: int, places: int) -> list[int]:
        """From each place on, accepted tokens in a row; a row is cut where the draws end."""
        count = -(-places // PIECE) * PIECE
        at = np.arange(count)
        refused = uniforms(self.seed, _OWN, np.array([job]), at) >= self.rate
        ends = np.where(refused, at, count)
        runs: list[int] = (np.minimum.accumulate(ends[::-1])[::-1] - at).tolist()
        return runs


def expected_tokens(rate: float, drafted: int) -> float:
    """Mean tokens of a pass: (1 - a^(k+1)) / (1 - a) for k drafted ones (Leviathan et al. 2023, equation 1)."""
    return drafted + 1.0 if rate >= 1 else (1 - rate ** (drafted + 1)) / (1 - rate)


def read_acceptance(known: str | Mapping[str, Any], seed: int) -> Acceptance:
    """What a measured run accepted, {"rate": mean, "jobs": {job: {place: tokens}}}, or the file it is in; places it did
    not see are drawn with that rate. BadInput if it cannot be read."""
    try:
        content = json.loads(Path(known).read_text(encoding="utf-8")) if isinstance(known, str) else known
        recorded = {int(job): {int(at): int(n) for at, n in places.items()} for job, places in content["jobs"].items()}
        return Acceptance(float(content["rate"]), seed, recorded)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise BadInput(
            f"cannot read the accepted tokens of speculation.acceptance={known!r:.60} ({error}): give a rate from 0 to "
            "1, or the acceptance.json that airi compare left."
        ) from error

"""One seed, several independent streams: changing what one of them feeds leaves the others as they were."""

from __future__ import annotations

import numpy as np

from airi_sim.core.errors import BadInput

STREAMS = ("arrivals", "input", "output", "prefix", "tenants")
"""Names of the streams; new ones go at the end, so that the old ones keep their numbers."""


def stream(seed: int, name: str) -> np.random.Generator:
    """The generator of one stream: child number `STREAMS.index(name)` of the seed (numpy SeedSequence)."""
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise BadInput(f"seed must be a whole number, 0 or more, not {seed!r}.")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(STREAMS.index(name),)))

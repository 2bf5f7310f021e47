"""One seed, several independent streams: changing what one of them feeds leaves the others as they were."""

from __future__ import annotations

import numpy as np

from airi_sim.workload.checks import whole

STREAMS = ("arrivals", "input", "output", "prefix", "tenants", "models")
"""Names of the streams; new ones go at the end, so that the old ones keep their numbers."""


def stream(seed: int, name: str) -> np.random.Generator:
    """The generator of one stream: child number `STREAMS.index(name)` of the seed (numpy SeedSequence).

    Raises BadInput for a seed that is no whole number of at least 0.
    """
    return np.random.default_rng(np.random.SeedSequence(whole("seed", seed, 0), spawn_key=(STREAMS.index(name),)))

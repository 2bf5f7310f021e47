"""The prefix cache of a model server as an LRU cache with independent references."""

from __future__ import annotations

import numpy as np

from airi_sim.workbench.theory import forms
from airi_sim.workbench.theory.rig import Customers, PassCost, Station, Tokens, generate, run
from airi_sim.workbench.theory.rows import ASYMPTOTIC, Claim, Experiment, Sample

BLOCK = 16
"""Tokens of a block; a prompt is one block that may be cached, and one token that never is."""


FILL = 6
"""References for each place of the cache before anything is counted."""


def experiments() -> list[Experiment]:
    """Few items exactly, many by Che's approximation."""
    few = [_experiment(items, room, exact=True, n=15_000) for items, room in ((6, 3), (8, 2))]
    return few + [_experiment(10_000, room, exact=False, n=40_000) for room in (100, 1000, 3000)]


def _experiment(items: int, room: int, exact: bool, n: int) -> Experiment:
    popularity = forms.zipf(items, 0.8)

    def sample(rng: np.random.Generator, n: int) -> Sample:
        full = FILL * room
        drawn = rng.choice(items, full + n, p=popularity)
        who = Customers(np.arange(full + n, dtype=float), np.full(full + n, BLOCK + 1), items=drawn)
        kind = Tokens(PassCost(1e-3), blocks=room + 1, block=BLOCK, caching=True)
        trace = run([Station(kind, "generate")], who, generate)
        hits = np.array([row[12] > 0 for row in sorted(trace.log.jobs)])[full:]
        drift = popularity[drawn[full:]].mean() - popularity @ popularity
        return Sample({"hits": hits.mean()}, [float(drift)])

    name = f"LRU, {items} items, room for {room}"
    if exact:
        claim = Claim("hits", f"{name}: hit rate", forms.lru_hit_rate(popularity, room), "King 1971", unit="")
        return Experiment(name, sample, (claim,), n, quick=items == 6)
    form, note = forms.che_hit_rate(popularity, room), "for many items"
    claim = Claim("hits", f"{name}: hit rate", form, "Che et al. 2002", ASYMPTOTIC, "", note)
    return Experiment(name, sample, (claim,), n, replications=8)

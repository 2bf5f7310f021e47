"""What the summary says of services: a section a pool, by the names that its jobs were logged under."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from airi_sim.results.columns import Columns
from airi_sim.results.stats import describe

Sections = dict[str, dict[str, Any]]


def sections(jobs: Columns, findings: Mapping[str, Mapping[str, Any]] | None = None) -> Sections:
    """By pool of services: its kind, jobs that finished, seconds from submission to end, and of feature pools the share
    of keys that the cache knew; with what the backend found besides (`findings`, by pool: the recall of an index)."""
    kinds, pools = jobs.texts("kind"), jobs.texts("pool")
    served = (kinds != "generate") & (kinds != "move") & (jobs.texts("status") == "finished")
    taken = jobs.floats("finished_s") - jobs.floats("submitted_s")
    found: Sections = {}
    for pool in sorted(set(pools[served].tolist())):
        rows = served & (pools == pool)
        kind = str(kinds[rows][0])
        found[pool] = {"kind": kind, "jobs": int(rows.sum()), "s": describe(taken[rows])}
        if kind == "features":
            asked = float(np.nansum(jobs.floats("tokens_in")[rows]))
            found[pool]["hit_rate"] = float(np.nansum(jobs.floats("cached_tokens")[rows])) / asked
        found[pool] |= (findings or {}).get(pool, {})
    return found

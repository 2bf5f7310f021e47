"""Models that come and go: loads and unloads, and how long jobs waited for them."""

from __future__ import annotations

from typing import Any

import numpy as np

from airi_sim.results.columns import Columns, Floats
from airi_sim.results.stats import describe


def loads(jobs: Columns, plans: Columns) -> dict[str, Any]:
    """`count` and `bytes` of loads that came to their end, the seconds `s` each took; `unloads`; `cold_s`: what jobs
    that found their model absent waited until it was there (they are `cold`)."""
    kind, done = plans.texts("kind"), plans.floats("passes") > 0
    rows = (kind == "load") & done
    waits = cold_starts(jobs, plans)
    waits = waits[~np.isnan(waits)]
    return {
        "count": int(rows.sum()),
        "unloads": int(((kind == "unload") & done).sum()),
        "bytes": float(plans.floats("prefill_tokens")[rows].sum()),
        "s": describe((plans.floats("end_s") - plans.floats("start_s"))[rows]),
        "cold": len(waits),
        "cold_s": describe(waits),
    }


def cold_starts(jobs: Columns, plans: Columns) -> Floats:
    """Seconds from the moment a job was submitted until the load of its replica was over, by job; nan for those that
    did not wait for one: no load ended there between submission and start."""
    submitted, started, server = jobs.floats("submitted_s"), jobs.floats("started_s"), jobs.texts("server")
    found = np.full(len(jobs), np.nan)
    rows = np.flatnonzero((plans.texts("kind") == "load") & (plans.floats("passes") > 0))
    names, ends = plans.texts("server")[rows], plans.floats("end_s")[rows]
    for name in set(names.tolist()):
        there = np.sort(ends[names == name])
        own = np.flatnonzero((server == name) & ~np.isnan(started))
        last = there[np.maximum(np.searchsorted(there, started[own], side="right") - 1, 0)]
        waited = (last > submitted[own]) & (last <= started[own])
        found[own[waited]] = (last - submitted[own])[waited]
    return found

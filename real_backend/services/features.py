"""Features from SQLite, with the cache that the server keeps in front of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from airi_sim.core.types import Job, Plan
from airi_sim.runtime.features import FeatureCache, missed_keys
from real_backend.calibrate import ALIKE_SHARE, WARM_UP, Sample, about, log_uniform
from real_backend.clock import Clock, Stopwatch
from real_backend.results import Results, Rows

Row = np.ndarray
AT_ONCE = 500
"""Keys in one statement; older versions of SQLite take at most 999."""
MOST = 64
"""Keys of a sample before any look-up of a run was seen."""


class FeatureTable:
    """`width` random numbers for each of `keys` keys, in a table of SQLite: in memory, or in the new file `path`."""

    def __init__(self, keys: int, width: int, seed: int = 0, path: str = ":memory:") -> None:
        self.keys, self.width = keys, width
        self.base = sqlite3.connect(path, isolation_level=None)
        self.base.execute("CREATE TABLE features (key INTEGER PRIMARY KEY, value BLOB NOT NULL)")
        random = np.random.default_rng(seed)
        values = random.standard_normal((keys, width), np.float32)
        self.write(enumerate(values))

    def write(self, rows: Iterator[tuple[int, Row]] | Sequence[tuple[int, Row]]) -> None:
        """Set the values of some keys, all or none."""
        self.base.execute("BEGIN")
        pairs = ((key, np.asarray(value, np.float32).tobytes()) for key, value in rows)
        self.base.executemany("INSERT OR REPLACE INTO features VALUES (?, ?)", pairs)
        self.base.execute("COMMIT")

    def read(self, keys: Sequence[int]) -> dict[int, Row]:
        """The values of different keys that are there."""
        found: dict[int, Row] = {}
        for first in range(0, len(keys), AT_ONCE):
            some = keys[first : first + AT_ONCE]
            marks = ",".join("?" * len(some))
            rows = self.base.execute(f"SELECT key, value FROM features WHERE key IN ({marks})", some)
            found |= {key: np.frombuffer(value, np.float32) for key, value in rows}
        return found

    def close(self) -> None:
        self.base.close()


class LookUps:
    """The work of a feature server: what its cache knows is taken from there, the rest is read.

    `share` gives it the cache of the server, which alone decides what is known; the values in it are kept here.
    """

    detailed = False

    def __init__(self, table: FeatureTable, results: Results) -> None:
        self.table = table
        self.results = results
        self.cache = FeatureCache(0)

    def share(self, cache: FeatureCache) -> None:
        self.cache = cache

    def prepare(self, plan: Plan) -> None:
        """A look-up has nothing to prepare."""

    def run(self, plan: Plan, watch: Stopwatch) -> tuple[dict[int, Row], Rows]:
        job = plan.slices[0][0]
        watch.lap()
        fresh, rows = look_up(self.table, self.cache.values, job.hashes, job.own, missed_keys(job))
        watch.lap()
        return fresh, rows

    def commit(self, plan: Plan, found: tuple[dict[int, Row], Rows]) -> list[Job]:
        job = plan.slices[0][0]
        fresh, rows = found
        self.cache.values.update(fresh)
        self.results.put(job, rows)
        return [job]

    def drop(self, job: int) -> None:
        """Nothing is kept between plans."""


def look_up(
    table: FeatureTable, values: dict[int, Row], keys: Sequence[int], known: Sequence[int], missed: Sequence[int]
) -> tuple[dict[int, Row], Rows]:
    """What was read, and the rows of all keys in their order."""
    fresh = table.read(missed)
    rows = fresh | {key: values[key] for key in known}
    return fresh, Rows(torch.from_numpy(np.stack([rows[key] for key in keys])))


class LookUpProbe:
    """Samples of look-ups: so many keys read, so many found."""

    def __init__(self, table: FeatureTable, clock: Clock, seed: int) -> None:
        self.table, self.clock = table, clock
        self.random = np.random.default_rng(seed)
        self.samples: list[Sample] = []
        self.most = 1
        self.values: dict[int, Row] = {}
        for _ in range(WARM_UP):
            self._measure(1, 1)

    def follow(self, plan: Plan) -> None:
        missed, found = plan.prefill_tokens, plan.shared
        self.most = max(self.most, missed + found)
        if self.random.random() < ALIKE_SHARE:
            self._sample(about(self.random, missed) if missed else 0, about(self.random, found) if found else 0)
        else:
            self.take()

    def widen(self) -> None:
        self.most = max(self.most, MOST)

    def take(self) -> None:
        keys = log_uniform(self.random, self.most)
        found = int(self.random.integers(0, keys + 1))
        self._sample(keys - found, found)

    def _sample(self, missed: int, found: int) -> None:
        missed = min(missed, self.table.keys)
        plan = Plan(-1, 0.0, [(None, missed)], [], prefill_tokens=missed, shared=found)
        self.samples.append(Sample(plan, self._measure(missed, found)))

    def _measure(self, missed: int, found: int) -> float:
        unknown = self.random.choice(self.table.keys, missed, replace=False).tolist()
        known = [-1 - key for key in range(found)]
        for key in known:
            self.values.setdefault(key, np.zeros(self.table.width, np.float32))
        watch = Stopwatch(self.clock)
        watch.lap()
        look_up(self.table, self.values, [*known, *unknown], known, unknown)
        watch.lap()
        return watch.stop().seconds

"""Feature look-ups: what SQLite returns, and what the cache in front of it keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from airi_sim.core.log import Log
from airi_sim.core.types import Call, Plan, Request
from airi_sim.policies.queues import Fcfs
from airi_sim.runtime.features import FeatureCache, FeatureServer, Popularity
from airi_sim.runtime.job import LiveJob
from real_backend.executor import TorchExecutor
from real_backend.results import Rows
from real_backend.services.features import FeatureTable
from tests.real_backend.test_services import Make
from tests.real_backend.world import POOL, Fixed

pytestmark = pytest.mark.real
FEATURES = replace(POOL, name="f", kind="features", model=None, service={"keys": 50, "width": 3})


def live(index: int, keys: int, prefix: tuple[int, ...] = ()) -> LiveJob:
    return LiveJob(Request(index, 0.0, keys), Call("features", keys, prefix=prefix), 0, 0.0)


def serve(server: FeatureServer, executor: TorchExecutor, job: LiveJob, now: float) -> Plan:
    """One look-up from start to end; the server decides, the executor reads."""
    server.submit(job, now)
    plan = server.plan(now)
    assert plan is not None
    end = executor.start(plan, now)
    server.commit(plan, executor.finish(plan, end), end)
    return plan


@pytest.mark.parametrize("where", ["memory", "file"])
def test_a_table_returns_what_was_written(where: str, tmp_path: Path) -> None:
    table = FeatureTable(2000, 4, seed=1, path=":memory:" if where == "memory" else str(tmp_path / "f.sqlite"))
    expected = np.random.default_rng(1).standard_normal((2000, 4), np.float32)
    keys = [1999, 0, *range(5, 1300), 2000]
    found = table.read(keys)
    assert sorted(found) == sorted(keys[:-1])  # nothing was written under 2000
    assert all(np.array_equal(value, expected[key]) for key, value in found.items())
    table.write([(7, np.full(4, 0.5)), (2000, np.arange(4))])
    found = table.read([7, 8, 2000])
    assert [found[key].tolist() for key in (7, 2000)] == [[0.5] * 4, [0.0, 1.0, 2.0, 3.0]]
    assert np.array_equal(found[8], expected[8])
    table.close()


def test_rows_are_those_of_the_table_found_or_read(make_backend: Make) -> None:
    backend = make_backend()
    executor = backend.executor(FEATURES, 0, Fixed())
    cache = FeatureCache(6)
    server = FeatureServer("f/0", 0, Fcfs, Log(), cache=cache, keys=Popularity(50))
    server.attach(executor)
    truth = FeatureTable(50, 3, seed=backend.library.seed).read(range(50))
    plans = []
    for index, keys in enumerate([(3, 1, 4, 1), (1, 5, 9, 2, 6), (5, 3, 5, 8, 9, 7), (9,)]):
        job = live(index, len(keys), keys)
        plans.append(serve(server, executor, job, float(index)))
        rows = backend.results.get(job.id)
        assert isinstance(rows, Rows)
        assert np.array_equal(rows.values.numpy(), np.stack([truth[key] for key in keys]))
        assert set(cache.values) == set(cache.until)
        assert len(cache.values) <= 6
    assert [plan.prefill_tokens for plan in plans] == [3, 4, 3, 0]
    assert [plan.shared for plan in plans] == [1, 1, 3, 1]


def test_without_a_cache_nothing_is_kept(make_backend: Make) -> None:
    backend = make_backend()
    executor = backend.executor(FEATURES, 0, Fixed())
    cache = FeatureCache(0)
    server = FeatureServer("f/0", 0, Fcfs, Log(), cache=cache, keys=Popularity(50))
    server.attach(executor)
    for index in range(3):
        plan = serve(server, executor, live(index, 2, (7, 8)), float(index))
        assert (plan.prefill_tokens, plan.shared) == (2, 0)
        assert not cache.values


def test_look_ups_are_calibrated_by_keys_read_and_found(make_backend: Make) -> None:
    pytest.importorskip("scipy")
    backend = make_backend(cocalibrate=True)
    executor = backend.executor(FEATURES, 0, Fixed())
    server = FeatureServer("f/0", 0, Fcfs, Log(), cache=FeatureCache(20), keys=Popularity(50))
    server.attach(executor)
    for index in range(12):
        serve(server, executor, live(index, 8), float(index))
    section = backend.profile()["kinds"]["features"]
    assert {"constant", "per_token", "per_item", "per_cached"} <= set(section)
    assert section["samples"] == 12

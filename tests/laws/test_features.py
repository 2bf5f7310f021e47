"""Feature servers: the cache decides by what it was asked and when, and by nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airi_sim.core.errors import BadInput, PolicyError
from airi_sim.core.log import Log
from airi_sim.core.types import Call, Item, Job, Request
from airi_sim.engine.driver import Driver
from airi_sim.engine.executors import ServiceExecutor
from airi_sim.hardware.service import ServiceCost
from airi_sim.policies.admission import Always
from airi_sim.policies.caches import Gdsf, Lfu, Lru, Radix
from airi_sim.policies.faults import Retry
from airi_sim.policies.models import Fixed
from airi_sim.policies.queues import Fcfs
from airi_sim.policies.routers import RoundRobin
from airi_sim.runtime.features import FeatureCache, FeatureServer, Popularity
from airi_sim.runtime.pool import Pool
from airi_sim.runtime.runtime import Runtime
from airi_sim.runtime.view import Board

KEYS = st.lists(st.integers(0, 12), min_size=1, max_size=6, unique=True)


class Naive:
    """An LRU cache with expiry as a list of (key, until), the least recently used first."""

    def __init__(self, entries: int, ttl_s: float) -> None:
        self.entries, self.ttl_s = entries, ttl_s
        self.rows: list[tuple[int, float]] = []

    def find(self, keys: Sequence[int], now: float) -> list[int]:
        found = [key for key in keys if any(known == key and now < until for known, until in self.rows)]
        for key in found:
            row = next(row for row in self.rows if row[0] == key)
            self.rows = [*[one for one in self.rows if one is not row], row]
        return found

    def add(self, keys: Sequence[int], now: float) -> list[int]:
        if not self.entries:
            return []
        for key in keys:
            self.rows = [*[row for row in self.rows if row[0] != key], (key, now + self.ttl_s)]
        gone = self.rows[: max(0, len(self.rows) - self.entries)]
        self.rows = self.rows[len(gone) :]
        return [key for key, _ in gone]


@settings(max_examples=200, deadline=None)
@given(
    entries=st.integers(0, 8),
    ttl_s=st.sampled_from([1.0, 3.5, inf]),
    steps=st.lists(st.tuples(KEYS, st.integers(0, 3)), max_size=40),
    policy=st.sampled_from([None, Lru]),
)
def test_the_cache_is_lru_with_expiry(entries: int, ttl_s: float, steps: Any, policy: Any) -> None:
    cache, naive, now = FeatureCache(entries, ttl_s, policy), Naive(entries, ttl_s), 0.0
    for keys, gap in steps:
        now += gap
        found = cache.find(keys, now)
        assert found == naive.find(keys, now)
        missed = [key for key in keys if key not in found]
        cache.values |= dict.fromkeys(missed, "read")
        assert cache.add(missed, now) == naive.add(missed, now)
        assert list(cache.until) == [key for key, _ in naive.rows]
        assert cache.values.keys() == cache.until.keys()
        assert len(cache.until) <= entries


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(KEYS, max_size=60), policy=st.sampled_from([Lfu, Radix, Gdsf]), ttl_s=st.sampled_from([2.0, inf]))
def test_every_cache_policy_keeps_to_its_room(steps: Any, policy: Any, ttl_s: float) -> None:
    cache = FeatureCache(5, ttl_s, policy)
    for now, keys in enumerate(steps):
        found = cache.find(keys, now)
        missed = [key for key in keys if key not in found]
        gone = cache.add(missed, now)
        assert len(set(gone)) == len(gone)
        assert not set(gone) & cache.until.keys()
        assert len(cache.until) <= 5


def test_lfu_keeps_what_is_popular() -> None:
    cache = FeatureCache(3, inf, Lfu)
    for now in range(5):
        cache.add(cache_misses(cache, [1, 2], now), now)
    for key in range(10, 20):
        cache.add(cache_misses(cache, [key], 10), 10)
    assert {1, 2} <= cache.until.keys()


def cache_misses(cache: FeatureCache, keys: Sequence[int], now: float) -> list[int]:
    found = cache.find(keys, now)
    return [key for key in keys if key not in found]


def test_a_value_is_known_up_to_but_not_at_its_end() -> None:
    cache = FeatureCache(4, 2.0)
    cache.add([7], 1.0)
    assert cache.find([7], 2.999) == [7]
    assert cache.find([7], 3.0) == []


def test_a_policy_that_names_others_is_refused() -> None:
    class Confused:
        def victims(self, idle: Any, n: int) -> list[int]:
            return [99] * n

    cache = FeatureCache(1, inf, Confused)
    with pytest.raises(PolicyError, match="policy Confused chose"):
        cache.add([1, 2], 0.0)


@pytest.mark.parametrize(
    "wrong", [{"entries": -1}, {"entries": 3, "ttl_s": 0.0}, {"entries": 3, "ttl_s": float("nan")}]
)
def test_a_cache_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="a feature cache needs"):
        FeatureCache(**wrong)


def job(index: int, keys: int = 40, prefix: tuple[int, ...] = ()) -> Job:
    return Job(Request(index, 0.0, keys), Call("features", keys, prefix=prefix), 0, 0.0)


class TestPopularity:
    """Which keys a job asks for."""

    def test_zipf_shares(self) -> None:
        popular = Popularity(50, skew=1.2, seed=3)
        counts = Counter(key for index in range(3000) for key in popular.of(job(index)))
        total = sum((k + 1) ** -1.2 for k in range(50))
        for key in (0, 1, 2, 10, 49):
            expected = 120_000 * (key + 1) ** -1.2 / total
            assert abs(counts[key] - expected) < 6 * expected**0.5

    def test_the_same_job_asks_for_the_same_keys(self) -> None:
        assert Popularity(1000, 1.0, 5).of(job(3)) == Popularity(1000, 1.0, 5).of(job(3))
        assert Popularity(1000, 1.0, 5).of(job(3)) != Popularity(1000, 1.0, 6).of(job(3))
        assert Popularity(1000, 1.0, 5).of(job(3)) != Popularity(1000, 1.0, 5).of(job(4))

    def test_a_program_may_name_them(self) -> None:
        assert Popularity(10).of(job(1, 3, prefix=(4, 14, 25, 6))) == [4, 4, 5]

    @pytest.mark.parametrize("wrong", [{"keys": 0}, {"keys": 5, "skew": -1.0}, {"keys": 5, "skew": inf}])
    def test_what_cannot_be_drawn_from_is_refused(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(BadInput, match="features need keys"):
            Popularity(**wrong)


def world(
    requests: int, entries: int, depth: int = 1, ttl_s: float = inf, gap: float = 1.0
) -> tuple[Driver, FeatureServer, Log, Iterator[Item]]:
    """Requests one after another, each a look-up of eight keys; a key takes 10 ms to read, 1 ms to be found."""
    log = Log()
    cache = FeatureCache(entries, ttl_s)
    server = FeatureServer("f/0", 0, Fcfs, log, cache=cache, keys=Popularity(60, seed=1), depth=depth)
    pool = Pool("f", "features", "", [server], RoundRobin(), Board([server]))

    programs = {"chat": lambda _: Call("features", 8)}
    runtime = Runtime([pool], log, admission=Always(), model_router=Fixed(), faults=Retry(), programs=programs)
    cost = ServiceCost(constant=0.1, per_token=0.01, per_cached=0.001)
    items = iter([Item(Request(i, i * gap, 8), 1) for i in range(requests)])
    return Driver(runtime, [ServiceExecutor(cost)]), server, log, items


def test_a_look_up_takes_what_it_has_to_read_and_logs_what_it_found() -> None:
    driver, server, log, items = world(40, entries=30)
    driver.run(items)
    naive, popular = Naive(30, inf), Popularity(60, seed=1)
    for row in log.jobs:
        keys = popular.of(job(row[1], 8))
        different = list(dict.fromkeys(keys))
        missed = [key for key in different if key not in naive.find(different, 0.0)]
        naive.add(missed, 0.0)
        assert row[12] == 8 - len(missed)
        assert row[9] - row[7] == pytest.approx(0.1 + 0.01 * len(missed) + 0.001 * (8 - len(missed)))
    assert 0 < sum(row[12] for row in log.jobs) < 8 * 40
    found = [row for row in log.decisions if row[4].startswith("found")]
    assert [row[4] for row in found] == [f"found {row[12]} of 8" for row in log.jobs]
    forgotten = [row for row in log.decisions if row[4].startswith("forget")]
    assert forgotten
    assert len(server.cache.until) == 30


def test_a_key_under_way_is_not_known_yet() -> None:
    """Two look-ups at the same time read the same keys both; a third one later finds them."""
    driver, _, log, items = world(3, entries=100, depth=2, gap=0.0)
    driver.run(items)
    keys = [Popularity(60, seed=1).of(job(index, 8)) for index in range(3)]
    known = {*keys[0], *(keys[1] if len(set(keys[1])) <= len(set(keys[0])) else ())}  # the third one starts after these
    assert [row[12] for row in sorted(log.jobs)] == [
        8 - len(set(keys[0])), 8 - len(set(keys[1])), 8 - len(set(keys[2]) - known),
    ]  # fmt: skip
    assert known & set(keys[2])


def test_a_server_that_died_comes_back_with_an_empty_cache() -> None:
    driver, server, log, items = world(20, entries=100)
    driver.at(10.05, lambda: driver.runtime.server_down(0, 10.05))
    driver.at(10.5, lambda: driver.runtime.server_up(0, 10.5))
    driver.run(items)
    assert {row[14] for row in log.jobs} <= {"finished", "failed"}
    later = next(row for row in sorted(log.jobs) if row[7] is not None and row[7] > 10.4)
    keys = Popularity(60, seed=1).of(job(later[1], 8))
    assert later[12] == len(keys) - len(set(keys))
    assert server.inflight_tokens == server.queued_tokens == 0

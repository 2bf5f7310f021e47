"""After every commit nothing is lost and nothing is held twice: requests, tokens, KV blocks, block ids, references."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from airi_sim.core.types import Item
from airi_sim.runtime.token_server import TokenServer
from tests.laws.test_oracle import BATCHERS, EVICTORS, QUEUES
from tests.laws.test_shapes import empty
from tests.laws.worlds import Setup, copy, workload

worlds = st.builds(
    lambda seed, rate, groups, **rest: Setup(workload(seed, 25, rate, 200, 60, groups=groups), caching=True, **rest),
    seed=st.integers(0, 10**6),
    rate=st.sampled_from([2.0, 30.0, 200.0]),
    groups=st.sampled_from([0, 2]),
    queue=st.sampled_from(list(QUEUES.values())),
    batcher=st.sampled_from(list(BATCHERS.values())),
    evictor=st.sampled_from(list(EVICTORS.values())),
    blocks=st.sampled_from([24, 40, 90, 5000]),
    seats=st.sampled_from([3, 12, 40]),
    limit=st.sampled_from([40, 64, 512]),
    replicas=st.sampled_from([1, 2]),
    depth=st.sampled_from([1, 1, 2]),
)


def check(server: TokenServer) -> None:
    """What must hold on a server at any moment between two calls."""
    reserved = sum(plan.reserved for plan in server.flights)
    cache = server.cache
    assert cache is not None
    holders: Counter[Any] = Counter(h for job in server.running.values() for h in getattr(job, "own", ()))
    assert holders == Counter({h: n for h, n in cache.references.items() if n})
    assert set(cache.idle) == {h for h, n in cache.references.items() if not n}
    private = sum(server.held(job) - len(getattr(job, "own", ())) * cache.unit for job in server.running.values())
    referenced = sum(1 for n in cache.references.values() if n) * cache.unit
    assert server.free == server.total - private - referenced - reserved
    assert server.blank == server.free - len(cache.idle) * cache.unit
    assert server.blank >= 0
    for lane in server.lanes:
        members = [job for job in server.running.values() if job.lane is lane]
        assert lane.count == len(members)
        assert lane.context == sum(lane.tokens(job) for job in members)
        phases = Counter((job.g0 - job.n0) % server.block for job in members)
        assert lane.phases == [phases[i] for i in range(server.block)]
    assert server.inflight_tokens == sum(job.prompt for job in server.jobs.values())
    waiting = [job for i, job in server.jobs.items() if i not in server.running]
    assert server.queued_tokens == sum(job.tokens for job in waiting)
    assert len(server.queue) == len(waiting)


def check_pages(server: TokenServer) -> None:
    """Every block id is spare, cached, or in the private part of exactly one table."""
    pages, cache = server.pages, server.cache
    assert pages is not None
    assert cache is not None
    shared = {page for ids in pages.cached.values() for page in ids}
    assert set(pages.cached) == set(cache.references)
    private = [page for job in server.running.values() for page in job.table if page not in shared]
    everywhere = pages.spare + sorted(shared) + private
    assert sorted(everywhere) == list(range(1, server.total + 1))


def run(setup: Setup, detailed: bool) -> tuple[Any, Any, int]:
    runtime, driver, log = setup.build(fast=not detailed)
    commits = 0
    for server in runtime.servers:
        server.detailed = detailed
        server.empty()
    finish = runtime.finish

    def watched(plan: Any, outcome: Any, now: float) -> None:
        nonlocal commits
        finish(plan, outcome, now)
        commits += 1
        for server in runtime.servers:
            check(server)
            if detailed:
                check_pages(server)

    runtime.finish = watched  # type: ignore[method-assign]
    driver.run(iter([Item(copy(item.request), item.output_tokens) for item in setup.items]))
    return runtime, log, commits


@given(worlds, st.booleans())
@settings(max_examples=60)
def test_blocks_tokens_and_ids_are_conserved_after_every_commit(setup: Setup, detailed: bool) -> None:
    runtime, log, commits = run(setup, detailed)
    assert commits > 0
    for server in runtime.servers:
        assert server.free == server.total
    assert not runtime.flows
    statuses = {row[0]: row[11] for row in log.requests}
    assert sorted(statuses) == [item.request.id for item in setup.items]
    finished = {i for i, status in statuses.items() if status == "finished"}
    emitted = {row[0]: row[9] for row in log.requests}
    limit = setup.blocks * setup.block
    for item in setup.items:
        if item.request.id in finished:
            assert emitted[item.request.id] == min(item.output_tokens, limit - item.request.tokens)


@given(worlds)
@settings(max_examples=25)
def test_every_token_is_in_exactly_one_span_and_every_pass_in_one_plan(setup: Setup) -> None:
    ran = setup.run()
    tokens = Counter[int]()
    for _, _, job, first, last, _, emitted in ran.log.spans:
        tokens[job] += last - first + emitted
    finished = {row[0]: row[11] for row in ran.log.jobs if row[14] == "finished"}
    assert tokens == Counter(finished)
    by_server = Counter[str]()
    for row in ran.log.plans:
        by_server[row[0]] += row[4]
    assert by_server == Counter({server.name: server.passes for server in ran.runtime.servers if server.passes})


@given(worlds)
@settings(max_examples=25)
def test_the_same_world_twice_gives_the_same_rows(setup: Setup) -> None:
    first, again = setup.run(), setup.run()
    assert first.log.rows == again.log.rows
    assert first.log.decisions_hash() == again.log.decisions_hash()


def test_an_untouched_world_is_empty() -> None:
    runtime, _, _ = Setup(workload(0, 3, 1.0, 100, 10)).build()
    empty(runtime)

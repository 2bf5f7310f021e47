"""Handing over running jobs: in every mishap nothing is held twice, nothing leaks, and fast = stepwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airi_sim.core.log import Log
from airi_sim.core.types import Affine, Item, Request
from airi_sim.engine.driver import Driver
from airi_sim.engine.executors import CostExecutor, ServiceExecutor
from airi_sim.policies.admission import Always
from airi_sim.policies.batchers import ChunkedPrefill
from airi_sim.policies.evictors import LastIn
from airi_sim.policies.faults import Retry
from airi_sim.policies.models import Fixed
from airi_sim.policies.queues import Fcfs
from airi_sim.policies.routers import RoundRobin
from airi_sim.runtime.pool import Pool
from airi_sim.runtime.runtime import Runtime
from airi_sim.runtime.service import Link
from airi_sim.runtime.token_server import TokenServer
from airi_sim.runtime.view import Board
from tests.laws.test_shapes import empty
from tests.laws.worlds import Lengths, Line, chat


class Bytes:
    """A microsecond a kilobyte."""

    def affine(self, plan: Any) -> Affine:
        return Affine(plan.prefill_tokens * 1e-6)


def anybody(_job: Any) -> bool:
    return True


class Two:
    """Pool a with one replica, pool b with another, a link between them."""

    def __init__(self, items: list[Item], blocks: int = 1000, seats: int = 64, fast: bool = True) -> None:
        self.items = sorted(items, key=lambda item: (item.request.arrival, item.request.id))
        self.log = log = Log()
        sizes = ((1000, seats), (blocks, 64))
        self.servers = [
            TokenServer(f"r{i}", i, Fcfs, ChunkedPrefill(), LastIn(), log, blocks=b, seats=s, limit=512, fast=fast)
            for i, (b, s) in enumerate(sizes)
        ]
        self.link = Link("link", 2, Fcfs, log)
        kinds = (("a", "generate", self.servers[:1]), ("b", "generate", self.servers[1:]), ("", "move", [self.link]))
        pools = [Pool(f"p{m}", kind, m, s, RoundRobin(), Board(s)) for m, kind, s in kinds]
        parts = {"admission": Always(), "model_router": Fixed(), "faults": Retry(), "programs": {"chat": chat}}
        self.runtime = Runtime(pools, log, **parts)  # type: ignore[arg-type]
        script = Lengths(items)
        executors = [CostExecutor(Line(), script), CostExecutor(Line(), script), ServiceExecutor(Bytes())]
        self.driver = Driver(self.runtime, executors)

    def move(self, at: float, chosen: Callable[[Any], bool] = anybody) -> None:
        def go() -> None:
            for job in list(self.servers[0].running.values()):
                if job.lane is not None and chosen(job):
                    self.runtime.hand_over(job, self.servers[1], self.link, 1000, at)

        self.driver.at(at, go)

    def run(self) -> dict[int, float]:
        self.driver.run(iter(self.items))
        empty(self.runtime)
        return {row[0]: row[7] for row in self.log.requests if row[11] == "finished"}


def jobs(n: int, model: str = "a", first: int = 0, out: int = 50) -> list[Item]:
    return [Item(Request(first + i, 0.01 * i, 100, model=model), out) for i in range(n)]


def test_the_link_dies_and_the_jobs_stay_where_they_were() -> None:
    world = Two(jobs(2))
    world.move(0.2)
    world.driver.at(0.25, lambda: world.runtime.server_down(2, 0.25))
    assert set(world.run()) == {0, 1}
    assert {row[5] for row in world.log.jobs} == {"r0"}


def test_a_cancellation_before_a_departure_that_finds_no_room_is_not_forgotten() -> None:
    world = Two(jobs(1), blocks=3)
    world.move(0.2)
    world.driver.at(0.2, lambda: world.runtime.cancel(0, 0.2))
    assert world.run() == {}
    assert world.runtime.counts["cancelled"] == 1


@pytest.mark.parametrize("fast", [True, False])
def test_an_adopted_job_is_cancelled_before_it_decodes(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    world = Two(jobs(1) + jobs(1, "b", 1, out=200), fast=fast)
    world.move(0.2)
    adopt = TokenServer.adopt

    def adopt_then_cancel(server: TokenServer, job: Any) -> None:
        adopt(server, job)
        at = world.driver.now + 1e-6
        world.driver.at(at, lambda: world.runtime.cancel(0, at))

    monkeypatch.setattr(TokenServer, "adopt", adopt_then_cancel)
    assert set(world.run()) == {1}


@pytest.mark.parametrize("blocks", range(20, 60, 3))
def test_an_adopted_job_may_be_evicted_in_the_same_draft(blocks: int) -> None:
    items = jobs(4, out=80) + jobs(4, "b", 4, out=120)
    world = Two(items, blocks=blocks)
    for k in range(3):
        world.move(0.2 + 0.1 * k)
    assert set(world.run()) == set(range(8))
    assert {row[0]: row[9] for row in world.log.requests} == {item.request.id: item.output_tokens for item in items}


@pytest.mark.parametrize(("blocks", "seats"), [(1000, 3), (24, 64), (30, 64), (36, 64), (39, 64)])
def test_moves_are_the_same_fast_and_stepwise(blocks: int, seats: int) -> None:
    found = []
    for fast in (True, False):
        world = Two(jobs(6, out=300) + jobs(2, "b", 6, out=300), blocks, seats, fast)
        world.move(0.4, lambda job: job.request in (0, 2))
        found.append((world.run(), world.log.decisions_hash()))
    assert found[0][1] == found[1][1]
    assert max(abs(found[0][0][i] - found[1][0][i]) for i in range(8)) < 1e-6


def test_only_decoding_jobs_can_be_handed_over() -> None:
    world = Two([Item(Request(0, 0.0, 2000, model="a"), 20)])

    def go() -> None:
        job = world.servers[0].running[0]
        with pytest.raises(ValueError, match="only decoding jobs"):
            world.runtime.hand_over(job, world.servers[1], world.link, 1000, 0.08)

    world.driver.at(0.08, go)
    assert set(world.run()) == {0}


def test_a_moved_job_belongs_to_the_pool_of_its_new_server() -> None:
    world = Two(jobs(1))
    world.move(0.2)
    world.run()
    assert [(row[4], row[5]) for row in world.log.jobs] == [("pb", "r1")]


@pytest.mark.parametrize("fast", [True, False])
def test_a_job_that_ends_with_the_pass_in_flight_is_no_longer_expected(fast: bool) -> None:
    world = Two(jobs(1, out=2), fast=fast)
    moved: list[float] = []

    def go() -> None:
        job = next(iter(world.servers[0].running.values()))
        if job.lane is not None and not moved:
            moved.append(world.driver.now)
            world.runtime.hand_over(job, world.servers[1], world.link, 1000, 0.018)

    world.driver.at(0.018, go)
    assert set(world.run()) == {0}
    assert moved
    assert world.servers[1].coming == 0 and not world.servers[0].leaving


def test_a_source_that_dies_before_its_job_has_left_is_no_longer_expected() -> None:
    world = Two(jobs(1))
    world.move(0.2)
    world.driver.at(0.2, lambda: world.runtime.server_down(0, 0.2))
    assert world.run() == {}  # its pool has no other replica
    assert world.servers[1].coming == 0 and not world.servers[0].leaving

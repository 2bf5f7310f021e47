"""The wall driver on a clock of its own: open loop, in turn, in order; and once in real time."""

from __future__ import annotations

from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

import pytest

from airi_sim.core.errors import PolicyError
from airi_sim.core.types import Item, Outcome, Plan, Request
from airi_sim.engine.executors import Stops
from airi_sim.policies.admission import TokenBucket
from airi_sim.policies.faults import Retry
from airi_sim.workbench.build import build_backend
from airi_sim.workbench.config import load_config, plain
from airi_sim.workbench.execute import perform
from real_backend.wall import LISTEN_S, WallDriver
from tests.laws.worlds import Lengths, Setup

pytestmark = pytest.mark.real


class Clock:
    """Stands still until somebody sleeps or works."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Worker:
    """Works for one second a pass."""

    detailed = False

    def __init__(self, clock: Clock, lengths: Lengths) -> None:
        self.clock, self.stops = clock, Stops(lengths)

    def start(self, plan: Plan, now: float) -> float:
        self.clock.now += 1.0
        return now + 1.0

    def cut(self, plan: Plan, now: float, more: int = 0) -> float | None:
        raise AssertionError("nothing is in flight when somebody could cut")

    def progress(self, plan: Plan, now: float) -> int:
        raise AssertionError("nothing is in flight when somebody could ask")

    def finish(self, plan: Plan, now: float) -> Outcome:
        return Outcome(*self.stops.finish(plan, now))


def world(items: list[Item], **setup: Any) -> tuple[Any, WallDriver, Any, Clock]:
    made = Setup(items, **setup)
    runtime, _, log = made.build()
    clock = Clock()
    workers = [Worker(clock, Lengths(items)) for _ in runtime.servers]
    return runtime, WallDriver(runtime, workers, clock=clock, sleep=clock.sleep), log, clock


def requests(*rows: tuple[float, int, int]) -> list[Item]:
    """(arrival, prompt tokens, output tokens) each."""
    return [Item(Request(i, arrival, tokens), out) for i, (arrival, tokens, out) in enumerate(rows)]


def test_arrivals_are_heard_between_plans_and_counted_from_when_they_were_meant() -> None:
    items = requests((1.0, 10, 2), (1.5, 10, 2), (10.0, 10, 1))
    _, driver, log, clock = world(items)
    assert driver.run(iter(items)) == 11.0
    assert clock.slept == [1.0, 6.0]
    times = {row[0]: row[5:8] for row in log.requests}
    assert times == {0: (1.0, 2.0, 3.0), 1: (1.5, 3.0, 4.0), 2: (10.0, 11.0, 11.0)}
    assert [row[6] for row in sorted(log.jobs)] == [1.0, 2.0, 10.0]


def test_replicas_share_the_device_by_turns() -> None:
    items = requests((0.0, 10, 2), (0.0, 10, 2), (0.0, 10, 1))
    _, driver, log, _ = world(items, replicas=3)
    driver.run(iter(items))
    assert [(row[0], row[2], row[3]) for row in log.plans] == [
        ("r0", 0.0, 1.0), ("r1", 1.0, 2.0), ("r2", 2.0, 3.0), ("r0", 3.0, 4.0), ("r1", 4.0, 5.0),
    ]  # fmt: skip


def test_timers_are_served() -> None:
    items = requests((0.0, 10, 1), (0.0, 10, 1))
    runtime, driver, log, clock = world(items)
    runtime.admission, runtime.always = TokenBucket(rate=4, capacity=10), False
    driver.run(iter(items))
    assert [row[4] for row in log.decisions if row[2] == "TokenBucket"] == ["admit", "later", "admit"]
    assert clock.slept == [1.5]
    assert sorted(row[6] for row in log.requests) == [1.0, 3.5]


def test_what_is_due_at_once_happens_in_the_order_of_every_driver() -> None:
    items = requests((0.0, 10, 5), (0.5, 10, 5), (0.5, 10, 1))
    runtime, driver, log, _ = world(items)
    heard: list[tuple[str, int]] = []
    driver.at(0.4, lambda: heard.append(("before", len(runtime.flows))))
    driver.at(0.7, lambda: runtime.cancel(0, driver.now))
    driver.run(iter(items))
    assert heard == [("before", 1)]
    assert {row[0]: row[11] for row in log.requests} == {0: "cancelled", 1: "finished", 2: "finished"}


def test_until_abandons_what_is_under_way() -> None:
    items = requests((0.0, 10, 50), (100.0, 10, 1))
    _, driver, log, _ = world(items)
    assert driver.run(iter(items), until=3.5) == 4.0
    assert [row[11] for row in log.requests] == ["unfinished"]


class Idler:
    """A batcher that never runs anything."""

    def form(self, draft: Any, queue: Any, now: float) -> None:
        return


def test_a_run_in_which_nothing_moves_ends() -> None:
    items = requests((0.0, 10, 1))
    _, driver, _, _ = world(items, batcher=Idler)
    with pytest.raises(PolicyError, match="nothing moves any more: r0 holds 1 jobs"):
        driver.run(iter(items))


def test_a_short_run_in_real_time(tmp_path: Path) -> None:
    config = plain(load_config(["validate=parity", "backend.clock=wall", "workload.n=12", "workload.rate=40"]))
    ran = perform(config, tmp_path, build_backend(config), "")
    assert isinstance(ran.driver, WallDriver)
    intended = {item.request.id: item.request.arrival for item in ran.workload}
    assert {row[0]: row[5] for row in ran.log.requests} == intended
    assert all(row[11] == "finished" and row[6] >= row[5] for row in ran.log.requests)
    plans = sorted((row[2], row[3]) for row in ran.log.plans)
    assert all(end <= start for (_, end), (start, _) in pairwise(plans)), "one plan at a time"
    assert ran.driver.now >= max(intended.values())


class Far(Worker):
    """Works for one second a pass, elsewhere; `lose()` is a worker that dies."""

    busy = False
    channels: tuple[Any, ...] = ()
    due = inf

    def __init__(self, clock: Clock, lengths: Lengths) -> None:
        super().__init__(clock, lengths)
        self.plan: Plan | None = None
        self.end = 0.0
        self.failed = ""
        self.news: list[str] = []

    def lose(self) -> None:
        self.failed, self.end = "it died", self.clock.now
        if self.plan is None:
            self.news.append("down")

    def start(self, plan: Plan, now: float) -> float:
        raise AssertionError("nobody waits for a worker")

    def progress(self, plan: Plan, now: float) -> int:
        return 0

    def launch(self, plan: Plan, now: float) -> None:
        assert not self.busy
        self.plan, self.end, self.busy = plan, self.clock.now + 1.0, True

    def hear(self) -> str:
        if self.news:
            return self.news.pop(0)
        if self.plan is None or self.clock.now < self.end - 1e-9:
            return ""
        plan, self.plan, self.busy = self.plan, None, False
        return "over" if plan.live else "idle"

    def finish(self, plan: Plan, now: float) -> Outcome:
        failed, self.failed = self.failed, ""
        return Outcome(0, [], 0.0, None, failed) if failed else super().finish(plan, now)


def far_world(items: list[Item], **setup: Any) -> tuple[Any, WallDriver, Any, list[Far]]:
    runtime, _, log = Setup(items, **setup).build()
    clock = Clock()
    clock.now = 0.0  # fractions of a second add up exactly enough to reach the next moment
    workers = [Far(clock, Lengths(items)) for _ in runtime.servers]
    return runtime, WallDriver(runtime, workers, clock=clock, sleep=clock.sleep), log, workers


def test_workers_work_at_the_same_time_and_arrivals_are_heard_meanwhile() -> None:
    items = requests((0.0, 10, 2), (0.3, 10, 2), (0.6, 10, 1))
    _, driver, log, _ = far_world(items, replicas=3)
    assert driver.run(iter(items)) == pytest.approx(2.3, abs=LISTEN_S)
    started = {row[0]: row[2] for row in reversed(log.plans)}
    assert started == pytest.approx({"r0": 0.0, "r1": 0.3, "r2": 0.6}, abs=0.01)


def test_what_comes_during_a_pass_of_a_worker_is_in_its_next() -> None:
    items = requests((0.0, 10, 3), (0.5, 10, 1))
    _, driver, log, _ = far_world(items)
    driver.run(iter(items))
    plans = [(row[5], row[6]) for row in log.plans]  # decodes, prefill tokens
    assert plans == [(0, 10), (1, 10), (1, 0)]


def test_the_jobs_of_a_worker_that_dies_go_on_elsewhere() -> None:
    items = requests((0.0, 10, 3), (0.0, 10, 3), (5.0, 10, 2))
    runtime, driver, log, workers = far_world(items, replicas=2)
    driver.at(1.5, workers[1].lose)
    driver.at(3.0, lambda: workers[1].news.append("up"))
    driver.run(iter(items))
    assert [row[11] for row in log.requests] == ["finished"] * 3
    assert [server.up for server in runtime.servers] == [True, True]
    jobs = {row[1]: row for row in log.jobs}
    assert jobs[1][5] == "r0"
    assert [row[0] for row in log.plans if row[4] == 0] == ["r1"], "the pass that failed"
    assert "r1" in {row[0] for row in log.plans if row[2] >= 3.0}, "it is back"


def test_a_worker_that_dies_idle_is_given_nothing() -> None:
    items = requests((1.0, 10, 1), (2.5, 10, 1), (4.0, 10, 1))
    _, driver, log, workers = far_world(items, replicas=2)
    driver.at(0.5, workers[0].lose)
    driver.run(iter(items))
    assert {row[0] for row in log.plans} == {"r1"}


def test_a_pass_of_a_dead_server_is_waited_for_and_forgotten() -> None:
    items = requests((0.0, 10, 2))
    runtime, driver, log, _ = far_world(items)
    runtime.faults = Retry(backoff_s=0.3)
    driver.at(0.2, lambda: runtime.server_down(0, driver.now))
    driver.at(0.4, lambda: runtime.server_up(0, driver.now))
    driver.run(iter(items))
    assert [row[4] for row in log.plans] == [0, 1, 1]
    assert [row[2] for row in log.plans] == pytest.approx([0.0, 1.0, 2.0], abs=LISTEN_S)

"""The wall driver on a clock of its own: open loop, in turn, in order; and once in real time."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from airi_sim.core.errors import PolicyError
from airi_sim.core.types import Item, Outcome, Plan, Request
from airi_sim.engine.executors import Stops
from airi_sim.policies.admission import TokenBucket
from airi_sim.workbench.build import build_backend
from airi_sim.workbench.config import load_config, plain
from airi_sim.workbench.execute import perform
from real_backend.wall import WallDriver
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
        return self.stops.over(plan, 1, 1.0)


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

"""What users read is the same fast and stepwise: every figure of the summary, every column of the view."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from airi_sim.core.errors import BadInput, PolicyError
from airi_sim.core.types import Call, Horizon, Item, Request
from airi_sim.engine.turns import Device, TurnsDriver
from airi_sim.policies.admission import TokenBucket
from airi_sim.policies.batchers import ChunkedPrefill, Static
from airi_sim.policies.faults import Retry
from airi_sim.policies.queues import Fcfs
from airi_sim.policies.routers import Jsq
from airi_sim.results.metrics import summarise
from airi_sim.runtime.view import COLUMNS
from tests.laws.test_shapes import empty, start
from tests.laws.worlds import Setup, workload


def figures(setup: Setup, fast: bool, died: float | None = None, until: float | None = None) -> dict[str, Any]:
    runtime, driver, log, items = start(setup, fast)
    if died is not None:
        driver.at(died, lambda: runtime.server_down(0, died))
        driver.at(died + 0.5, lambda: runtime.server_up(0, died + 0.5))
    end = driver.run(iter(items), **({} if until is None else {"until": until}))
    summary = summarise(log.rows, engine={}, provenance={}, duration_s=end)
    del summary["engine"]
    return summary


def close(a: Any, b: Any, path: str = "") -> list[str]:
    """Where two summaries differ."""
    if isinstance(a, dict):
        return [text for key in a for text in close(a[key], b[key], f"{path}/{key}")]
    same = a == b or (isinstance(a, float) and isinstance(b, float) and abs(a - b) <= 1e-6 * max(1.0, abs(a)))
    return [] if same else [f"{path}: {a} and {b}"]


@pytest.mark.parametrize("blocks", [10_000, 44])
@pytest.mark.parametrize("died", [None, 0.7])
def test_every_figure_is_the_same(blocks: int, died: float | None) -> None:
    setup = Setup(workload(3, 40, 25.0, 200, 60), replicas=2, router=Jsq, blocks=blocks)
    assert close(figures(setup, True, died), figures(setup, False, died)) == []


def test_the_most_blocks_used_are_seen_although_a_plan_is_many_passes() -> None:
    setup = Setup([Item(Request(0, 0.0, 100), 300)])
    peak = figures(setup, True)["utilization"]["servers"]["r0"]["peak_kv_blocks"]
    assert peak == -(-399 // 16)


def test_a_run_that_is_stopped_books_what_was_under_way() -> None:
    setup = Setup([Item(Request(0, 0.0, 100), 300)])
    tokens = []
    for fast in (True, False):
        runtime, driver, log, items = start(setup, fast)
        driver.run(iter(items), until=1.0)
        tokens.append(log.requests[0][9])
        assert log.requests[0][11] == "unfinished"
        assert not runtime.flows
    assert tokens[0] == tokens[1] > 100


@pytest.mark.parametrize("blocks", [10_000, 44])
def test_live_columns_are_the_state_of_the_servers_at_any_moment(blocks: int) -> None:
    setup = Setup(workload(5, 40, 40.0, 200, 60), blocks=blocks, batcher=ChunkedPrefill)
    runtime, driver, _, items = start(setup)
    board, server = runtime.home[0].board, runtime.servers[0]

    def look(now: float) -> None:
        waiting = [job for i, job in server.jobs.items() if i not in server.running]
        truth = {
            "waiting": len(waiting), "running": len(server.running), "outstanding": len(server.jobs),
            "queued_tokens": sum(job.tokens for job in waiting), "kv_used_blocks": server.kv_used(now), "up": 1,
            "inflight_tokens": sum(job.prompt for job in server.jobs.values()), "kv_total_blocks": blocks,
            "sent": 0,
        }  # fmt: skip
        assert {name: board.column(name, now)[0] for name in COLUMNS} == truth

    for i in range(150):
        driver.at(0.02 * i, lambda i=i: look(0.02 * i))
    driver.run(iter(items))


def test_a_stale_view_shows_the_state_before_a_cancellation_at_the_tick() -> None:
    setup = Setup([Item(Request(i, 0.01, 100), 300) for i in range(4)], period=0.1)
    runtime, driver, _, items = start(setup)
    seen: list[int] = []

    def cancel() -> None:
        runtime.cancel(0, 0.15)
        seen.append(runtime.home[0].board.column("outstanding", 0.15)[0])

    driver.at(0.15, cancel)
    driver.run(iter(items))
    assert seen == [4]


# -- a closed loop, programs, timers


def test_a_closed_loop_survives_any_number_of_refusals() -> None:
    setup = Setup([Item(Request(i, 0.0, 200), 5) for i in range(2000)])
    runtime, driver, _, items = start(setup)
    runtime.concurrency, runtime.always = 1, False
    runtime.admission = TokenBucket(rate=1.0, capacity=300.0, wait=False)
    driver.run(iter(items))
    empty(runtime)
    assert runtime.counts["rejected"] > 1500


def test_a_request_that_waits_outside_can_be_cancelled() -> None:
    runtime, driver, log, items = start(Setup([Item(Request(i, 0.0, 100), 20) for i in range(3)]))
    runtime.concurrency = 1
    driver.at(0.05, lambda: runtime.cancel(2, 0.05, "gave up"))
    driver.run(iter(items))
    assert {row[0]: (row[11], row[12]) for row in log.requests}[2] == ("cancelled", "gave up")


def test_a_cancellation_outside_lets_nobody_in_early() -> None:
    runtime, driver, log, items = start(Setup([Item(Request(i, 0.0, 100), 20) for i in range(4)]))
    runtime.concurrency = 1
    driver.at(0.05, lambda: runtime.cancel(3, 0.05))
    driver.run(iter(items))
    ran = sorted((row[5], row[7]) for row in log.requests if row[11] == "finished")
    assert all(first[1] <= second[0] for first, second in pairwise(ran))


def test_a_program_hears_of_a_failure_and_may_fall_back() -> None:
    def fall_back(request: Request) -> Any:
        reply = yield Call("generate", 10**9)
        if reply.status != "finished":
            yield Call("generate", request.tokens)

    setup = Setup([Item(Request(0, 0.0, 100), 20)], programs={"chat": fall_back})
    runtime, driver, log, items = start(setup)
    driver.run(iter(items))
    empty(runtime)
    assert log.requests[0][11] == "finished"
    assert [row[14] for row in log.jobs] == ["rejected", "finished"]


def test_a_program_that_tries_for_ever_ends_with_a_sentence() -> None:
    def again(_: Request) -> Any:
        while True:
            yield Call("generate", 10**9)

    _, driver, _, items = start(Setup([Item(Request(0, 0.0, 100), 20)], programs={"chat": again}))
    with pytest.raises(BadInput, match="its program does not end"):
        driver.run(iter(items))


class Patient(Static):
    """Waits for three jobs, or ten seconds."""

    greedy = False

    def form(self, draft: Any, queue: Any, now: float) -> None:
        if draft.decoding or len(queue) >= 3:
            super().form(draft, queue, now)

    def stable(self, draft: Any, queue: Any, now: float) -> Any:
        return Horizon(1, now + 10.0)


def test_a_timer_that_rings_for_nothing_does_not_lengthen_the_run() -> None:
    runtime, driver, log, items = start(Setup([Item(Request(i, 0.01 * i, 50), 3) for i in range(3)], batcher=Patient))
    assert driver.run(iter(items)) == max(row[7] for row in log.requests) < 1.0
    empty(runtime)


def test_cancelled_jobs_in_a_queue_without_remove_hold_nobody_up() -> None:
    class NoRemove(Fcfs):
        remove = None

    items = [Item(Request(i, 0.0, 50), 5) for i in range(3)]
    runtime, driver, _, rows = start(Setup(items, queue=NoRemove, batcher=lambda: Static(size=1)))
    driver.at(0.001, lambda: runtime.cancel(1, 0.001))
    driver.run(iter(rows))
    empty(runtime)
    assert runtime.counts["finished"] == 2


def test_a_job_that_was_in_is_not_asked_to_be_admitted_again_after_its_server_died() -> None:
    runtime, driver, log, items = start(Setup([Item(Request(0, 0.0, 90), 100)], replicas=2))
    runtime.admission, runtime.always = TokenBucket(rate=1.0, capacity=100.0, charge_output=False), False
    runtime.faults = Retry(limit=3, backoff_s=0.1)
    driver.at(0.3, lambda: runtime.server_down(0, 0.3))
    driver.run(iter(items))
    assert (log.requests[0][11], log.requests[0][9]) == ("finished", 100)


# -- shared accelerators, cancellation with two plans in flight


def shared(fast: bool, died: float | None = None) -> tuple[Any, Any]:
    setup = Setup([Item(Request(i, 0.01 * i, 60), out) for i, out in enumerate((400, 5, 60, 60))], replicas=2)
    runtime, alone, log, items = start(setup, fast)
    driver = TurnsDriver(runtime, alone.executors, devices=[device := Device(), device], learn=alone.learn)
    if died is not None:
        driver.at(died, lambda: runtime.server_down(0, died))
    driver.run(iter(items))
    empty(runtime)
    return {row[0]: row[7] for row in log.requests}, [row[0] for row in sorted(log.plans, key=lambda row: row[2])]


@pytest.mark.parametrize("died", [None, 0.2])
def test_a_shared_accelerator_takes_turns_and_is_the_same_fast_and_stepwise(died: float | None) -> None:
    fast, order = shared(True, died)
    slow, _ = shared(False, died)
    assert max(abs(fast[i] - slow[i]) for i in fast) < 1e-6
    assert fast[1] < 0.3
    if died is None:
        both = order[2:10]
        assert all(a != b for a, b in pairwise(both))


@pytest.mark.parametrize("seed", range(8))
def test_cancellations_with_two_plans_in_flight_leak_nothing(seed: int) -> None:
    setup = Setup(workload(seed, 40, 60.0, 200, 60), depth=2, blocks=60, limit=128)
    runtime, driver, _, items = start(setup)
    for i in range(0, 40, 2):
        at = items[i].request.arrival + 0.02 * (i % 9)
        driver.at(at, lambda i=i, at=at: runtime.cancel(i, at))
    driver.run(iter(items))
    empty(runtime)
    assert runtime.counts["cancelled"] > 5


def test_a_batcher_cannot_raise_its_seats() -> None:
    class Greedy(ChunkedPrefill):
        def form(self, draft: Any, queue: Any, now: float) -> None:
            draft.seats = 50
            super().form(draft, queue, now)

    runtime, driver, _, items = start(Setup(workload(0, 20, 100.0, 50, 30), batcher=Greedy, seats=2))
    with pytest.raises(PolicyError, match="on 2 seats"):
        driver.run(iter(items))
    assert runtime.servers[0].max_seats == 2


def test_a_long_stretch_of_decodes_takes_no_more_memory_than_there_is() -> None:
    """Regression: memory that lasts for a thousand passes was taken to last until somebody stops."""
    setup = Setup([Item(Request(i, 0.0, 100), 2900 + 40 * i) for i in range(3)], blocks=400)
    fast, slow = (setup.run(fast=fast).log for fast in (True, False))
    assert max(row[8] for row in fast.plans) <= 400
    assert {row[0]: row[9] for row in fast.requests} == {row[0]: row[9] for row in slow.requests}
    assert max(abs(a[7] - b[7]) for a, b in zip(sorted(fast.requests), sorted(slow.requests), strict=True)) < 1e-6

"""The room the design leaves (docs/design.md, 'shapes'): each works in the core although its feature comes later."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from airi_sim.core.log import Log
from airi_sim.core.types import Affine, Call, Item, Outcome, Request
from airi_sim.engine.driver import Driver
from airi_sim.engine.executors import CostExecutor, ServiceExecutor
from airi_sim.engine.turns import Device, TurnsDriver
from airi_sim.policies.admission import Always, TokenBucket
from airi_sim.policies.batchers import ChunkedPrefill, admit_waiting
from airi_sim.policies.evictors import LastIn
from airi_sim.policies.faults import Fail, Retry
from airi_sim.policies.models import Fixed
from airi_sim.policies.queues import Fcfs
from airi_sim.policies.routers import Jsq, RoundRobin
from airi_sim.runtime.pool import Pool
from airi_sim.runtime.runtime import Runtime
from airi_sim.runtime.service import Link
from airi_sim.runtime.token_server import TokenServer
from airi_sim.runtime.view import Board
from tests.laws.worlds import Lengths, Line, Setup, chat, copy, workload


def empty(runtime: Runtime) -> None:
    """Nothing leaks: no block, seat, job or request is left anywhere."""
    assert not runtime.flows
    for server in runtime.servers:
        assert not server.jobs and not server.running and not server.flights
        if isinstance(server, TokenServer):
            assert server.free == server.total and not server.lane.count and not server.incoming and not server.moving
            assert server.queued_tokens == server.inflight_tokens == server.coming == 0
            assert not server.leaving


def start(setup: Setup, fast: bool = True) -> tuple[Runtime, Driver, Any, list[Item]]:
    runtime, driver, log = setup.build(fast)
    return runtime, driver, log, [Item(copy(i.request), i.output_tokens) for i in setup.items]


def statuses(log: Any) -> dict[int, str]:
    return {row[0]: row[11] for row in log.requests}


# -- a server dies


@pytest.mark.parametrize("fast", [True, False])
def test_a_server_dies_in_the_middle_of_a_plan_and_its_jobs_go_on_elsewhere(fast: bool) -> None:
    setup = Setup(workload(1, 60, 20.0, 200, 100), replicas=2, router=Jsq)
    runtime, driver, log, items = start(setup, fast)
    died = items[30].request.arrival + 1e-3
    driver.at(died, lambda: runtime.server_down(0, died))
    driver.at(died + 1.0, lambda: runtime.server_up(0, died + 1.0))
    driver.run(iter(items))
    empty(runtime)
    assert set(statuses(log).values()) == {"finished"}
    assert {row[0]: row[9] for row in log.requests} == {i.request.id: i.output_tokens for i in items}
    assert any(row[1] == "gateway" and row[4] == "again" for row in log.decisions)
    assert any(row[0] == "r0" and row[2] > died + 1.0 for row in log.plans)


def test_a_dead_server_fails_its_jobs_when_the_policy_says_so() -> None:
    setup = Setup(workload(1, 30, 50.0, 200, 100), replicas=2)
    runtime, driver, log, items = start(setup)
    runtime.faults = Fail()
    died = items[-1].request.arrival
    driver.at(died, lambda: runtime.server_down(0, died))
    driver.run(iter(items))
    empty(runtime)
    assert sorted(set(statuses(log).values())) == ["failed", "finished"]
    assert runtime.counts["failed"] + runtime.counts["finished"] == 30


def test_death_is_the_same_fast_and_stepwise() -> None:
    times = []
    for fast in (True, False):
        runtime, driver, log, items = start(Setup(workload(4, 40, 20.0, 200, 100), replicas=2, router=Jsq), fast)
        driver.at(1.0, lambda runtime=runtime: runtime.server_down(1, 1.0))
        driver.run(iter(items))
        times.append(({r[0]: r[7] for r in log.requests}, log.decisions_hash()))
    assert times[0][1] == times[1][1]
    assert max(abs(times[0][0][i] - times[1][0][i]) for i in times[0][0]) < 1e-6


# -- a job is handed over


def handed_over(kill: str = "", blocks: int = 1000) -> tuple[Runtime, Any, list[int]]:
    """Two replicas and a link; every job of the first is moved to the second while it decodes."""
    items = [Item(Request(i, 0.01 * i, 100), 50) for i in range(4)]
    log = Log()
    servers = [
        TokenServer(f"r{i}", i, Fcfs, ChunkedPrefill(), LastIn(), log, blocks=b) for i, b in enumerate((1000, blocks))
    ]
    link = Link("link", 2, Fcfs, log)
    pools = [
        Pool("a", "generate", "", servers[:1], RoundRobin(), Board(servers[:1])),
        Pool("b", "other", "", servers[1:], RoundRobin(), Board(servers[1:])),
        Pool("link", "move", "", [link], RoundRobin(), Board([link])),
    ]
    runtime = Runtime(pools, log, admission=Always(), model_router=Fixed(), faults=Retry(), programs={"chat": chat})
    script = Lengths(items)

    class Bytes:
        def affine(self, plan: Any) -> Any:
            return Affine(plan.prefill_tokens * 1e-6)

    executors = [CostExecutor(Line(), script), CostExecutor(Line(), script), ServiceExecutor(Bytes())]
    driver = Driver(runtime, executors)
    held: list[int] = []

    def move() -> None:
        for job in list(servers[0].running.values()):
            runtime.hand_over(job, servers[1], link, 1000, 0.2)

    def look() -> None:
        held.extend([servers[0].total - servers[0].free, servers[1].total - servers[1].free])

    driver.at(0.2, move)
    driver.at(0.25, look)
    if kill == "cancel":
        for i in range(4):
            driver.at(0.26, lambda i=i: runtime.cancel(i, 0.26))
    elif kill:
        driver.at(0.26, lambda: runtime.server_down(int(kill), 0.26))
    driver.run(iter(items))
    return runtime, log, held


def test_a_job_is_handed_over_with_its_blocks_held_at_both_ends_until_the_move_commits() -> None:
    runtime, log, held = handed_over()
    empty(runtime)
    assert set(statuses(log).values()) == {"finished"}
    assert held[0] > 0 and held[1] == held[0]
    assert {row[5] for row in log.jobs} == {"r1"}
    moves = [row for row in log.plans if row[1] == "move"]
    assert len(moves) == 4
    assert all(row[9] == 50 for row in log.requests)


@pytest.mark.parametrize("kill", ["0", "1", "cancel"])
def test_a_handover_that_goes_wrong_leaks_nothing(kill: str) -> None:
    runtime, log, _ = handed_over(kill)
    if kill == "0":
        assert set(statuses(log).values()) == {"failed"}
    if kill != "0":
        empty(runtime)
    assert sum(runtime.counts[s] for s in ("finished", "failed", "cancelled")) == 4
    assert runtime.servers[1].free == runtime.servers[1].total and not runtime.servers[1].incoming


def test_without_room_at_the_target_a_job_stays_where_it_is() -> None:
    runtime, log, _ = handed_over(blocks=3)
    empty(runtime)
    assert {row[5] for row in log.jobs} == {"r0"}


# -- servers share an accelerator


def test_two_servers_share_an_accelerator_one_plan_at_a_time() -> None:
    setup = Setup(workload(2, 40, 30.0, 200, 60), replicas=2)
    runtime, alone, log, items = start(setup)
    driver = TurnsDriver(runtime, alone.executors, devices=[device := Device(), device])
    driver.run(iter(items))
    empty(runtime)
    spans = sorted((row[2], row[3]) for row in log.plans)
    assert all(a[1] <= b[0] + 1e-9 for a, b in pairwise(spans))
    assert {row[0] for row in log.plans} == {"r0", "r1"}


# -- several plans in flight


def test_two_plans_in_flight_overlap_and_no_job_is_in_both() -> None:
    setup = Setup(workload(3, 60, 40.0, 200, 60), depth=2, blocks=400)
    runtime, driver, log, items = start(setup)
    together = []
    (server,), (start_plan,) = runtime.servers, driver.starts

    def watch(plan: Any, now: float) -> Any:
        if len(server.flights) == 2:
            lanes = [p.lane for p in server.flights]
            jobs = [{j.id for j, _ in p.slices} for p in server.flights]
            together.append(lanes[0] != lanes[1] and not jobs[0] & jobs[1])
        return start_plan(plan, now)

    driver.starts = [watch]
    driver.run(iter(items))
    empty(runtime)
    assert set(statuses(log).values()) == {"finished"}
    assert len(together) > 50 and all(together)


def test_two_plans_in_flight_survive_short_memory() -> None:
    setup = Setup(workload(5, 60, 60.0, 200, 60), depth=2, blocks=44)
    runtime, driver, log, items = start(setup)
    driver.run(iter(items))
    empty(runtime)
    assert set(statuses(log).values()) == {"finished"}
    assert sum(row[13] for row in log.jobs) > 0


# -- passes that accept 0 to k tokens a job


class Speculating(CostExecutor):
    """Accepts 0-4 tokens a job and pass, by a fixed pattern."""

    def start(self, plan: Any, now: float) -> float:
        self.out = getattr(self, "out", {})
        return super().start(plan, now)

    def finish(self, plan: Any, now: float) -> Outcome:
        advanced, stopped = {}, []
        for job in self.server.running.values():
            if job.lane is not None and plan.sequences:
                have = self.server.attained(job)
                accepted = min((job.id // 1000 + self.server.passes) % 5, self.length(job) - have)
                advanced[job] = accepted
                if have + accepted >= self.length(job):
                    stopped.append(job)
        stopped += [job for job in plan.ends if self.length(job) == job.out + 1]
        return Outcome(1, stopped, now - plan.start, advanced)

    server: TokenServer


@pytest.mark.parametrize("blocks", [2000, 50])
def test_passes_accept_zero_to_four_tokens(blocks: int) -> None:
    setup = Setup(workload(6, 40, 30.0, 200, 60), blocks=blocks)
    runtime, driver, log, items = start(setup)
    server = runtime.servers[0]
    server.lookahead = 3
    executor = Speculating(Line(), Lengths(items))
    executor.server = server
    driver.executors = [executor]
    driver.run(iter(items))
    empty(runtime)
    assert {row[0]: row[9] for row in log.requests} == {i.request.id: i.output_tokens for i in items}
    assert server.passes < sum(i.output_tokens for i in items)


# -- single decoding jobs are paused and resumed


class Pausing:
    """Sets the job with the most tokens aside every fourth pass, and lets it go on two passes later."""

    def __init__(self) -> None:
        self.n = 0
        self.done: list[int] = []

    def form(self, draft: Any, queue: Any, now: float) -> None:
        self.n += 1
        for job in list(draft.paused.values()):
            if self.n % 16 == 2 or draft.decoding == 0:
                draft.resume(job, now)
        candidates = [j for j in draft.running.values() if draft.attained(j) > 3 and j.id not in draft.paused]
        if self.n % 4 == 0 and candidates and draft.decoding > 1:
            job = max(candidates, key=draft.attained)
            draft.pause(job, now)
            self.done.append(job.id)
        draft.decode(now)
        for job in tuple(draft.partial):
            draft.chunk(job, now)
        admit_waiting(draft, queue, now)


def test_a_decoding_job_is_paused_and_resumed_and_keeps_its_memory() -> None:
    setup = Setup(workload(7, 40, 20.0, 200, 60), batcher=Pausing)
    runtime, driver, log, items = start(setup)
    driver.run(iter(items))
    empty(runtime)
    batcher = runtime.servers[0].batcher
    assert len(batcher.done) > 20
    assert {row[0]: row[9] for row in log.requests} == {i.request.id: i.output_tokens for i in items}
    assert sum(row[13] for row in log.jobs) == 0
    choices = {row[4] for row in log.decisions}
    assert {"pause", "resume"} <= choices


# -- cancellation in every state


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("queue", [Fcfs, None])
def test_a_request_is_cancelled_in_every_state(queue: Any, fast: bool) -> None:
    class NoRemove(Fcfs):
        remove = None

    setup = Setup(workload(8, 60, 60.0, 400, 80), queue=queue or NoRemove, seats=8, limit=128, batcher=Pausing)
    runtime, driver, _, items = start(setup, fast)
    seen: set[str] = set()

    def cancel_one(i: int, now: float) -> None:
        server = runtime.servers[0]
        i = next((job.request for job in server.paused.values()), i)
        flow = runtime.flows.get(i)
        if flow is not None:
            job = next(iter(flow.jobs.values()))
            state = (
                "waiting" if job.id not in server.running else "paused" if job.id in server.paused
                else "decoding" if job.lane is not None else "prompt"
            )  # fmt: skip
            seen.add(state)
            runtime.cancel(i, now)
            runtime.cancel(i, now)

    for i in range(0, 60, 2):
        at = items[i].request.arrival + 0.03 * (i % 40)
        driver.at(at, lambda i=i, at=at: cancel_one(i, at))
    driver.run(iter(items))
    empty(runtime)
    assert seen == {"waiting", "prompt", "decoding", "paused"}
    assert runtime.counts["cancelled"] + runtime.counts["finished"] == 60
    assert runtime.counts["cancelled"] > 15


def test_a_request_that_waits_at_the_gateway_is_cancelled() -> None:
    runtime, driver, _, items = start(Setup(workload(9, 10, 100.0, 100, 10)))
    runtime.admission, runtime.always = TokenBucket(rate=10.0, capacity=100.0, wait=True), False

    def cancel_all() -> None:
        for i in range(10):
            runtime.cancel(i, 0.5)

    driver.at(0.5, cancel_all)
    driver.run(iter(items))
    empty(runtime)
    assert runtime.counts["cancelled"] >= 3


# -- unlike pools


def test_two_unlike_pools_serve_two_models() -> None:
    log = Log()
    big = [TokenServer(f"big/{i}", i, Fcfs, ChunkedPrefill(), LastIn(), log, blocks=500) for i in range(2)]
    small = [TokenServer("small/0", 2, Fcfs, ChunkedPrefill(), LastIn(), log, blocks=100, block=32, seats=8)]
    pools = [
        Pool("big", "generate", "big", big, RoundRobin(), Board(big)),
        Pool("small", "generate", "small", small, RoundRobin(), Board(small)),
    ]

    def cascade(request: Request) -> Any:
        yield Call("generate", request.tokens, model="small")
        if request.id % 3 == 0:
            yield Call("generate", request.tokens, model="big")

    items = workload(10, 30, 20.0, 200, 40)
    runtime = Runtime(pools, log, admission=Always(), model_router=Fixed(), faults=Retry(), programs={"chat": cascade})
    script = Lengths(items)
    costs = [Line(), Line(), Line(base=0.001)]
    Driver(runtime, [CostExecutor(cost, script) for cost in costs]).run(iter(items))
    empty(runtime)
    by_pool: dict[str, int] = {}
    for row in log.jobs:
        by_pool[row[4]] = by_pool.get(row[4], 0) + 1
    assert by_pool == {"small": 30, "big": 10}

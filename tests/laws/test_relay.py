"""Prompts in one pool, decoding in another: nothing leaks, nothing is lost, fast = stepwise, whatever goes wrong."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any

import pytest

from airi_sim.core.log import Log
from airi_sim.core.types import FOREVER, Item, Request
from airi_sim.engine.driver import Driver
from airi_sim.engine.executors import CostExecutor
from airi_sim.engine.links import LinkExecutor
from airi_sim.hardware.network import Node, Topology, Wire
from airi_sim.policies.admission import Always
from airi_sim.policies.batchers import ChunkedPrefill
from airi_sim.policies.evictors import LastIn
from airi_sim.policies.faults import Retry
from airi_sim.policies.models import Fixed
from airi_sim.policies.preemption import Preemptive
from airi_sim.policies.queues import Edf, Fcfs, Las, Lcf, Mlfq, PredictedVtc, Qoe, SkipJoinMlfq, Srpt, Vtc
from airi_sim.policies.routers import Jsq, RoundRobin
from airi_sim.runtime.pool import Pool
from airi_sim.runtime.runtime import Runtime
from airi_sim.runtime.service import Link
from airi_sim.runtime.token_server import TokenServer
from airi_sim.runtime.view import Board
from tests.laws.test_shapes import empty
from tests.laws.worlds import Lengths, Line, chat, copy, workload

KV = 1000
"""Bytes of a token."""


@dataclass
class Relayed:
    """`prefill` and `decode` replicas; a card of `rate` bytes/s for each."""

    items: list[Item]
    prefill: int = 2
    decode: int = 2
    blocks: tuple[int, int] = (4000, 4000)
    seats: tuple[int, int] = (64, 64)
    rate: float = 1e7
    latency: float = 1e-3
    layers: int = 0
    period: float = 0.0
    caching: tuple[bool, bool] = (False, False)
    queue: Callable[[], Any] = Fcfs
    router: Callable[[], Any] = Jsq
    batcher: Callable[[], Any] = ChunkedPrefill
    until: float = inf
    shaken: list[tuple[float, Callable[[Any, float], None]]] = field(default_factory=list)

    def pool(self, role: str, log: Log, fast: bool, first: int) -> Pool:
        n, kind = (self.prefill, 0) if role == "prefill" else (self.decode, 1)
        longest = min(self.blocks) * 16
        servers = [
            TokenServer(
                f"{role}/{i}", first + i, self.queue, self.batcher(), LastIn(), log, blocks=self.blocks[kind],
                seats=self.seats[kind], limit=512, max_len=longest, fast=fast, caching=self.caching[kind],
                hash_block=16,
            )
            for i in range(n)
        ]  # fmt: skip
        return Pool(role, "generate", "m", servers, self.router(), Board(servers, self.period, FOREVER), role=role)

    def run(self, fast: bool = True) -> tuple[Runtime, Log]:
        log = Log()
        pools = [self.pool("prefill", log, fast, 0), self.pool("decode", log, fast, self.prefill)]
        link = Link("kv", self.prefill + self.decode, Fcfs, log, depth=FOREVER)
        pools.append(Pool("kv", "move", "", [link], RoundRobin(), Board([link])))
        topology = Topology()
        node = Node("n", 1, 1, {"nic": Wire(self.rate, 1.0, self.latency), "scale_up": Wire(1.0)})
        for i in range(self.prefill + self.decode):
            topology.place(i, node, 1, "all")
        parts = {"admission": Always(), "model_router": Fixed(), "faults": Retry(), "programs": {"chat": chat}}
        runtime = Runtime(pools, log, link=link, kv_bytes={"prefill": lambda tokens: KV * tokens}, **parts)
        script = Lengths(self.items)
        executors: list[Any] = [CostExecutor(Line(), script) for _ in range(self.prefill + self.decode)]
        driver = Driver(runtime, [*executors, LinkExecutor(topology, self.layers)])
        for at, shake in self.shaken:
            driver.at(at, lambda at=at, shake=shake: shake(runtime, at))  # type: ignore[misc]
        driver.run(iter([Item(copy(item.request), item.output_tokens) for item in self.items]), self.until)
        return runtime, log


def checked(world: Relayed) -> tuple[Log, Log]:
    """Run it fast and stepwise: the same decisions, the same times, nothing left anywhere. Returns both logs."""
    logs = []
    for fast in (True, False):
        runtime, log = world.run(fast)
        empty(runtime)
        assert not runtime.lines and not runtime.handovers
        assert [server.coming for server in runtime.servers] == [0] * len(runtime.servers)
        logs.append(log)
    assert logs[0].decisions_hash() == logs[1].decisions_hash()
    ended = [{row[0]: (row[6], row[7], row[11]) for row in log.requests} for log in logs]
    assert ended[0].keys() == ended[1].keys()
    for i, (first, finish, status) in ended[0].items():
        assert status == ended[1][i][2]
        for mine, other in zip((first, finish), ended[1][i], strict=False):
            assert mine == other or abs(mine - other) < 1e-6
    return logs[0], logs[1]


def outputs(log: Log) -> dict[int, int]:
    return {row[0]: row[9] for row in log.requests if row[11] == "finished"}


def wanted(items: list[Item]) -> dict[int, int]:
    return {item.request.id: item.output_tokens for item in items}


def moves(log: Log) -> list[Any]:
    return [row for row in log.plans if row[1] == "move"]


def test_one_request_by_hand() -> None:
    """100 tokens: a pass of 5 ms + 11 ms + 0.13 ms + 0.1 ms, then 100 KB at 10 MB/s after 1 ms, then 9 more tokens."""
    log, _ = checked(Relayed([Item(Request(0, 0.0, 100, model="m"), 10)]))
    first = 0.005 + 100 * 1.1e-4 + 100 * 1.3e-6 + 1e-8 * 100 * 100
    moved = first + 0.001 + 100 * KV / 1e7
    decode = sum(0.005 + 1.1e-4 + 1.3e-6 * (100 + i) for i in range(1, 10))
    assert log.requests[0][6] == pytest.approx(first)
    assert moves(log)[0][2:4] == pytest.approx((first, moved))
    assert log.requests[0][7] == pytest.approx(moved + decode)
    assert log.jobs[0][4:6] == ("decode", "decode/0")


def test_a_job_of_one_token_does_not_move() -> None:
    log, _ = checked(Relayed([Item(Request(0, 0.0, 100, model="m"), 1)]))
    assert moves(log) == []
    assert log.jobs[0][4] == "prefill"


def test_nobody_decodes_where_prompts_run() -> None:
    log, _ = checked(Relayed(workload(1, 60, 20.0, 300, 80)))
    assert outputs(log) == wanted(workload(1, 60, 20.0, 300, 80))
    assert {row[0] for row in log.plans if row[5]} == {"decode/0", "decode/1"}
    assert {row[0] for row in log.plans if row[6] and row[1] == "pass"} == {"prefill/0", "prefill/1"}


def test_two_moves_through_one_card_share_it() -> None:
    """100 KB each at 1 MB/s; the second prompt ends later, when the first move has been alone for that long."""
    items = [Item(Request(i, 0.0, 100, model="m"), 5) for i in range(2)]
    log, _ = checked(Relayed(items, prefill=1, rate=1e6))
    first, second = sorted(moves(log), key=lambda row: row[2])
    alone = second[2] - first[2]
    assert 0 < alone < 0.1
    assert first[3] == pytest.approx(second[2] + 2 * (0.1 - alone) + 0.001)
    assert second[3] == pytest.approx(first[3] + alone)


def test_a_layer_at_a_time_only_what_is_left_is_waited_for() -> None:
    """16 ms of prompt at 10 MB/s take all of the 100 KB ahead, but for the last of 20 layers."""
    item = [Item(Request(0, 0.0, 100, model="m"), 5)]
    whole, layered = (moves(checked(Relayed(item, layers=layers))[0])[0] for layers in (0, 20))
    assert whole[3] - whole[2] == pytest.approx(0.011)
    assert layered[3] - layered[2] == pytest.approx(0.001 + 100 * KV / 20 / 1e7)


REGIMES: dict[str, dict[str, Any]] = {
    "idle": {},
    "slow link": {"rate": 3e5},
    "seats full": {"seats": (64, 3)},
    "memory short": {"blocks": (4000, 60)},
    "prefill short too": {"blocks": (60, 60), "seats": (8, 8)},
    "one decodes": {"prefill": 3, "decode": 1, "blocks": (4000, 90)},
    "prefix cache": {"caching": (True, True), "blocks": (200, 90)},
    "prefix cache of prompts": {"caching": (True, False), "blocks": (200, 90)},
    "prefix cache of decodes": {"caching": (False, True), "blocks": (200, 90)},
    "stale": {"period": 0.05},
    "layer-wise": {"layers": 32},
}


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("seed", range(3))
def test_fast_is_stepwise_and_everybody_gets_his_tokens(regime: str, seed: int) -> None:
    items = workload(seed, 60, 30.0, 400, 120, groups=4 if "cache" in regime else 0)
    log, _ = checked(Relayed(items, **REGIMES[regime]))
    assert outputs(log) == wanted(items)
    assert all(row[8] <= (60 if "short" in regime else 4000) for row in log.plans if row[0].startswith("decode"))


def test_memory_short_really_makes_moves_wait_and_preempts() -> None:
    log, _ = checked(Relayed(workload(0, 60, 30.0, 400, 120), blocks=(4000, 60)))
    first = {row[0]: row[8] for row in log.jobs}
    begun = {-(job + 1000) // 1000: at for job, at in _departures(log)}
    assert any(at > first[job] + 0.1 for job, at in begun.items())
    assert sum(row[13] for row in log.jobs)


def _departures(log: Log) -> list[tuple[int, float]]:
    started = [row[3] for row in log.decisions if row[1] == "kv"]
    return list(zip(started, [row[2] for row in sorted(moves(log), key=lambda row: row[2])], strict=True))


def shaken(seed: int, servers: int, n: int, until: float) -> list[tuple[float, Callable[[Any, float], None]]]:
    """Servers (the link among them) that die and come back, and users who give up."""
    draw = random.Random(seed)
    found: list[tuple[float, Callable[[Any, float], None]]] = []
    for _ in range(4):
        at, who = draw.uniform(0.1, until), draw.randrange(servers)
        found.append((at, lambda runtime, now, who=who: runtime.server_down(who, now)))  # type: ignore[misc]
        found.append((at + 0.3, lambda runtime, now, who=who: runtime.server_up(who, now)))  # type: ignore[misc]
    for _ in range(n):
        request = draw.randrange(40)
        found.append((draw.uniform(0.1, until), lambda runtime, now, r=request: runtime.cancel(r, now)))  # type: ignore[misc]
    return sorted(found, key=lambda shake: shake[0])


@pytest.mark.parametrize("regime", ["idle", "slow link", "memory short", "one decodes", "prefix cache"])
@pytest.mark.parametrize("seed", range(6))
def test_whatever_dies_or_is_cancelled_nothing_leaks(regime: str, seed: int) -> None:
    items = workload(seed, 40, 30.0, 400, 120)
    world = Relayed(items, **REGIMES[regime])
    world.shaken = shaken(seed, world.prefill + world.decode + 1, 12, 2.5)
    log, _ = checked(world)
    assert {row[11] for row in log.requests} <= {"finished", "cancelled", "failed"}
    expected = wanted(items)
    assert all(tokens == expected[i] for i, tokens in outputs(log).items())


def test_a_job_that_waits_for_room_is_cancelled_at_once() -> None:
    items = [Item(Request(i, 0.0, 200, model="m"), 200) for i in range(4)]
    world = Relayed(items, prefill=1, decode=1, seats=(64, 1))
    at = 0.5
    world.shaken = [(at, lambda runtime, now: runtime.cancel(2, now))]
    log, _ = checked(world)
    assert next(row[9] for row in log.jobs if row[1] == 2) == at
    assert outputs(log) == dict.fromkeys((0, 1, 3), 200)


def test_a_run_that_ends_while_jobs_move_or_wait_for_room_holds_nothing() -> None:
    items = [Item(Request(i, 0.0, 200, model="m"), 200) for i in range(4)]
    for until, seats in ((0.5, 1), (0.23, 64)):
        log, _ = checked(Relayed(items, prefill=1, decode=1, seats=(64, seats), until=until))
        assert {row[11] for row in log.requests} == {"unfinished"}


def test_who_loses_patience_while_all_seats_are_held_by_jobs_that_wait_for_room_does_not_end_the_run() -> None:
    """Regression: nobody decodes there, so the queue was asked again at the very moment up to which it had answered."""
    items = [Item(Request(i, 0.0, 200, model="m"), 200) for i in range(6)]
    queue = partial(Mlfq, patience=0.2)
    log, _ = checked(Relayed(items, prefill=1, decode=1, seats=(2, 1), queue=queue, batcher=Preemptive))
    assert outputs(log) == wanted(items)


@pytest.mark.parametrize("queue", [Vtc, Lcf, PredictedVtc])
def test_tenants_are_booked_where_nobody_read_their_prompts(queue: Callable[[], Any]) -> None:
    checked(Relayed(workload(5, 40, 30.0, 300, 60), queue=queue))


@pytest.mark.parametrize("queue", [Srpt, Edf, Las, Mlfq, SkipJoinMlfq, Qoe])
def test_nobody_who_is_on_its_way_makes_way(queue: Callable[[], Any]) -> None:
    """Later requests are shorter and more urgent, so that they contest the seats of those that wait for room."""
    items = [
        Item(Request(i, 0.05 * i, 200 - 20 * i, deadline=10.0 - i, model="m"), 200 - 20 * i) for i in range(6)
    ]  # fmt: skip
    world = Relayed(items, prefill=1, decode=1, seats=(2, 1), queue=queue, batcher=Preemptive)
    log, _ = checked(world)
    assert outputs(log) == wanted(items)
    world.shaken = [(0.3, lambda runtime, now: runtime.cancel(1, now))]
    log, _ = checked(world)
    assert next(row[9] for row in log.jobs if row[1] == 1) >= 0.3


def test_without_a_decoding_replica_jobs_decode_where_they_are() -> None:
    items = [Item(Request(0, 0.1, 100, model="m"), 20)]
    log, _ = checked(Relayed(items, decode=1, shaken=[(0.0, lambda runtime, now: runtime.server_down(2, now))]))
    assert outputs(log) == {0: 20}
    assert log.jobs[0][4] == "prefill"


def test_who_waited_for_a_replica_that_died_goes_to_another() -> None:
    items = [Item(Request(i, 0.0, 200, model="m"), 100) for i in range(4)]
    world = Relayed(items, prefill=1, seats=(64, 1), router=RoundRobin)
    world.shaken = [(0.4, lambda runtime, now: runtime.server_down(1, now))]
    log, _ = checked(world)
    assert outputs(log) == wanted(items)
    assert {row[5] for row in log.jobs} == {"decode/1"}


def test_the_kv_of_a_dead_decoding_replica_is_computed_again_in_the_prefill_pool() -> None:
    items = [Item(Request(0, 0.0, 100, model="m"), 100)]
    world = Relayed(items, shaken=[(0.3, lambda runtime, now: runtime.server_down(2, now))])
    log, _ = checked(world)
    assert outputs(log) == {0: 100}
    assert len(moves(log)) == 2
    assert not [row for row in log.plans if row[0].startswith("decode") and row[6]]


class Ears(Fcfs):
    """Remembers what it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: dict[int, int] = {}

    def over(self, job: Any, tokens_out: int, now: float) -> None:
        self.heard[job.request] = tokens_out


def test_the_queue_of_a_prefill_replica_hears_of_the_real_end() -> None:
    items = workload(0, 30, 30.0, 200, 60)
    runtime, _ = Relayed(items, prefill=1, queue=Ears).run()
    assert runtime.servers[0].queue.heard == wanted(items)

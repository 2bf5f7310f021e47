"""Swap and copy on write: nothing is lost on the way, fast = stepwise, and every token reads what was written for it.

`Contents` is a memory of words instead of numbers: each slot holds which token of which text it is for, so that a block
that was copied too late, to the wrong place or from one that was given away shows at once.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from airi_sim.core.types import Copies, Copy, Ended, Item, Plan, Request
from airi_sim.engine.copies import CopyingExecutor
from airi_sim.policies.batchers import ChunkedPrefill
from airi_sim.policies.evictors import LastIn, SwapLong
from airi_sim.policies.preemption import Preemptive
from airi_sim.policies.queues import Edf, Las, Srpt
from airi_sim.runtime.swap import CopyingServer, Host
from tests.laws import test_conservation as conservation
from tests.laws.test_oracle import BATCHERS, EVICTORS, QUEUES, configuration, differs
from tests.laws.test_shapes import empty
from tests.laws.worlds import Lengths, Line, Setup, copy, workload

UNIT = 16
ORACLES = int(os.environ.get("AIRI_ORACLE", "60"))
WORLDS = int(os.environ.get("AIRI_WORLDS", "24"))


def world(seed: int, **changes: Any) -> Setup:
    """A random small world in which memory is short and blocks are copied."""
    draw = random.Random(seed)
    settings: dict[str, Any] = {
        "queue": draw.choice(list(QUEUES.values())),
        "batcher": draw.choice([*BATCHERS.values(), *[Fickle] * 6]),
        "evictor": draw.choice([*EVICTORS.values(), lambda: SwapLong(least=60)]),
        "block": draw.choice([4, 8, 16]),
        "seats": draw.choice([6, 40]),
        "limit": draw.choice([64, 200, 512]),
        "caching": draw.random() < 0.6,
        "copy_on_write": draw.random() < 0.6,
        "chunked": draw.random() < 0.8,
        "replicas": draw.choice([1, 2]),
    } | changes
    if draw.random() < 0.3:
        settings |= {"queue": draw.choice([Edf, Srpt, Las]), "batcher": Preemptive}
    tokens = draw.choice([400, 700, 1400])
    if not settings["chunked"]:
        settings |= {"limit": 512, "batcher": ChunkedPrefill}
    settings |= {"blocks": tokens // settings["block"]}
    settings.setdefault("host_blocks", draw.choice([3, 20, 2000]))
    items = workload(seed, 40, draw.choice([30.0, 200.0]), 300, 80, groups=3 if settings["caching"] else 0)
    return Setup(again(draw, items), **settings)


class Fickle(ChunkedPrefill):
    """Takes back, now and then, what it has just let in: nothing of it has happened yet."""

    def form(self, draft: Any, queue: Any, now: float) -> None:
        before = set(draft.running)
        super().form(draft, queue, now)
        fresh = [job for i, job in draft.running.items() if i not in before]
        if draft.passes % 5 == 4 and len(fresh) < len(draft.running):
            for job in fresh[-2:]:
                draft.preempt(job, now)


def again(draw: random.Random, items: list[Item]) -> list[Item]:
    """Some prompts come twice and end with a block, so that all of them is in the cache the second time."""
    whole = [item for item in items if item.request.prefix]
    for item in whole[::3]:
        other = draw.choice(whole).request
        item.request.prefix = other.prefix
        item.request.tokens = len(other.prefix) * UNIT
    return items


class Contents(CopyingExecutor):
    """Keeps what every slot of every block holds, and checks each plan against it."""

    detailed = True

    def __init__(self, server: CopyingServer, script: Lengths, setup: Setup) -> None:
        super().__init__(Line(), script, setup.copies)
        self.server, self.block = server, setup.block
        self.device: dict[int, list[Any]] = {}
        self.away: dict[int, list[Any]] = {}

    def start(self, plan: Plan, now: float) -> float:
        if plan.copies is not None:
            self.copy(plan.copies)
        rows = plan.rows or []
        for row in rows:
            for p in range(row.start, row.start + row.tokens):
                self.slots(row.table[p // self.block])[p % self.block] = word(row.job, p)
        for row in rows:
            end = row.start + row.tokens
            held = [one for page in row.table[: -(-end // self.block)] for one in self.slots(page)][:end]
            assert held == [word(row.job, p) for p in range(end)]
        self.nobody_writes_what_others_read(rows)
        return super().start(plan, now)

    def nobody_writes_what_others_read(self, rows: Sequence[Any]) -> None:
        readers = Counter(page for row in rows for page in row.table[: -(-(row.start + row.tokens) // self.block)])
        pages = self.server.pages
        assert pages is not None
        cached = {page for ids in pages.cached.values() for page in ids}
        for row in rows:
            for page in row.table[row.start // self.block : -(-(row.start + row.tokens) // self.block)]:
                assert readers[page] == 1
                assert page not in cached

    def copy(self, copies: Copies) -> None:
        read = [[list(self.slots(i)) for copy in part for i in copy.source] for part in copies[:2]]
        for i, held in zip(targets(copies.out), read[0], strict=True):
            self.away[i] = held
        for i, held in zip(targets(copies.inside), read[1], strict=True):
            self.device[i] = held
        for one in copies.back:
            for i, target in zip(one.source, one.target, strict=True):
                self.device[target] = list(self.away[i])

    def slots(self, page: int) -> list[Any]:
        return self.device.setdefault(page, [None] * self.block)


def targets(part: Sequence[Copy]) -> list[int]:
    return [i for copy in part for i in copy.target]


def word(job: Any, position: int) -> tuple[int, int]:
    """What token of which text: prompts with the same prefix id share it."""
    unit = position // UNIT
    return (job.prefix[unit] if unit < len(job.prefix) else -1 - job.id, position)


def check_host(server: CopyingServer) -> None:
    """Only jobs that wait have KV on the host, and every block of it is in one place."""
    host = server.host
    assert host.kept.keys() <= server.jobs.keys() - server.running.keys()
    assert host.free == host.total - sum(kept.blocks for kept in host.kept.values())
    if host.spare is not None:
        everywhere = [*host.spare, *[i for kept in host.kept.values() for i in kept.ids]]
        assert sorted(everywhere) == list(range(host.total))


def run(setup: Setup) -> tuple[Any, Any]:
    """Pass by pass with contents; everything is checked after every commit."""
    runtime, driver, log = setup.build(fast=False)
    script = Lengths(setup.items)
    driver.executors = [Contents(server, script, setup) for server in runtime.servers]
    driver.starts = [executor.start for executor in driver.executors]
    for server in runtime.servers:
        server.detailed = True
        server.empty()
    runtime.attach(driver.executors)
    finish = runtime.finish

    def watched(plan: Plan, outcome: Ended, now: float) -> None:
        finish(plan, outcome, now)
        for server in runtime.servers:
            check_host(server)
            if server.cache is not None:
                conservation.check(server)
                conservation.check_pages(server)

    runtime.finish = watched  # type: ignore[method-assign]
    driver.run(iter([Item(copy(item.request), item.output_tokens) for item in setup.items]))
    empty(runtime)
    for server in runtime.servers:
        assert server.host.free == server.host.total
    return runtime, log


def choices(log: Any) -> Counter[str]:
    """How often swapped, copied, preempted."""
    return Counter(row[4].rstrip(" 0123456789") for row in log.decisions)


def test_fast_is_stepwise_and_every_token_reads_what_was_written_for_it() -> None:
    seen: Counter[str] = Counter()
    for seed in range(WORLDS):
        setup = world(seed)
        fast, (_, log) = setup.run(), run(setup)
        assert fast.log.decisions_hash() == log.decisions_hash(), seed
        assert fast.apart({row[0]: (row[6], row[7]) for row in log.requests}) < 1e-6, seed
        seen += choices(log)
    assert min(seen["swap out"], seen["swap in"], seen["preempt"]) > 2 * WORLDS
    assert seen["copy"] > WORLDS // 4


# -- what it costs, and who decides


def two(evictor: Any = LastIn, **settings: Any) -> Setup:
    """Two jobs in memory for one and a half: the second is preempted once and goes on when the first is over."""
    items = [Item(Request(i, 0.0, 160), 40) for i in range(2)]
    return Setup(items, evictor=evictor, blocks=22, **({"host_blocks": 100} | settings))


def test_a_swapped_job_goes_on_where_it_was() -> None:
    """The second job started a pass later. When they hold 176 and 175 tokens, 22 blocks are full: 11 blocks go out and
    later back, and the pass in which they do is longer by what that takes. Then one token is computed, not 176."""
    setup, line = two(), Line()
    log = setup.run().log
    assert choices(log) == {"r": 2, "chunk": 3, "swap out": 1, "swap in": 1}
    assert [row[4] for row in log.decisions if row[4].startswith("swap")] == ["swap out 11", "swap in 11"]
    prompts = [row for row in log.plans if row[6]]
    assert [row[6] for row in prompts] == [160, 160, 1]
    back = line.base + line.token + line.context * 176 + line.pair * 351
    assert prompts[2][10] == pytest.approx(back + setup.copies.seconds(Copies(back=[Copy(None, 11)])))
    out = next(row for row in log.plans if row[5] == 1 and not row[6])
    alone = line.base + line.token + line.context * 177
    assert out[10] == pytest.approx(alone + setup.copies.seconds(Copies(out=[Copy(None, 11)])))
    assert out[4] == 1


def test_a_host_that_is_full_lets_the_job_be_computed_again() -> None:
    assert choices(two(host_blocks=10).run().log)["preempt"] == 1
    assert choices(two(host_blocks=11).run().log)["swap out"] == 1


def test_the_evictor_decides() -> None:
    assert choices(two(lambda: SwapLong(least=176)).run().log)["preempt"] == 1
    assert choices(two(lambda: SwapLong(least=175)).run().log)["swap out"] == 1


def test_swapping_costs_nothing_where_nobody_is_preempted() -> None:
    """The same decisions and times as a plain server."""
    setup = Setup(workload(3, 60, 20.0, 200, 60), seats=8)
    plain = setup.run()
    setup.host_blocks = 50
    swapping = setup.run()
    assert swapping.log.decisions_hash() == plain.log.decisions_hash()
    assert swapping.times == plain.times


def test_a_job_that_makes_way_for_an_earlier_deadline_is_swapped_too() -> None:
    items = [Item(Request(0, 0.0, 160, deadline=9.0), 100), Item(Request(1, 0.1, 160, deadline=1.0), 10)]
    ran = Setup(items, queue=Edf, batcher=Preemptive, seats=1, host_blocks=100).run()
    assert choices(ran.log)["swap out"] == choices(ran.log)["swap in"] == 1


# -- a prompt that is cached to its last token


def twins(**settings: Any) -> Setup:
    """The same prompt of four units, twice."""
    items = [Item(Request(i, float(i), 64, prefix=(1, 2, 3, 4)), 5) for i in range(2)]
    return Setup(items, caching=True, **settings)


@pytest.mark.parametrize(("copy_on_write", "computed", "cached"), [(False, 16, 48), (True, 1, 63)])
def test_of_a_cached_prompt_one_token_is_computed(copy_on_write: bool, computed: int, cached: int) -> None:
    ran = twins(copy_on_write=copy_on_write, block=4).run()
    assert [row[6] for row in ran.log.plans if row[6]] == [64, computed]
    assert [row[12] for row in sorted(ran.log.jobs)] == [0, cached]
    assert choices(ran.log)["copy"] == copy_on_write
    run(twins(copy_on_write=True, block=4))


class Regrets(ChunkedPrefill):
    """Takes back the second job the first time it lets it in, or the first time it does so again."""

    def __init__(self, time: int) -> None:
        super().__init__()
        self.times = time

    def form(self, draft: Any, queue: Any, now: float) -> None:
        before = set(draft.running)
        super().form(draft, queue, now)
        for job in [job for i, job in draft.running.items() if i == 1000 and i not in before]:
            self.times -= 1
            if not self.times:
                draft.preempt(job, now)


def test_who_is_sent_back_by_the_draft_that_let_it_in_has_what_it_had() -> None:
    """A copy that was not made yet is not made, and what was to come back from the host stays there."""
    _, log = run(twins(copy_on_write=True, block=4, host_blocks=50, batcher=lambda: Regrets(1)))
    assert choices(log) == {"r": 2, "chunk": 2, "preempt": 1, "copy": 1}
    _, log = run(two(batcher=lambda: Regrets(2)))
    assert choices(log) == {"r": 2, "chunk": 3, "swap out": 1, "preempt": 1, "swap in": 1}


def test_without_room_for_the_copy_it_is_computed() -> None:
    """Another job has all but a block; the last unit, four blocks, is computed as there is room, three times four
    tokens and then the rest."""
    items = [
        Item(Request(0, 0.0, 16, prefix=(1,)), 1),
        Item(Request(1, 0.1, 103, prefix=()), 9),
        Item(Request(2, 0.15, 16, prefix=(1,)), 1),
    ]
    setup = Setup(items, caching=True, copy_on_write=True, block=4, blocks=29, limit=1000)
    _, log = run(setup)
    assert choices(log)["copy"] == 0
    assert {row[11] for row in log.requests} == {"finished"}


# -- ends


@pytest.mark.parametrize(("end", "statuses"), [("dies", ["failed", "failed"]), ("gone", ["finished", "cancelled"])])
def test_what_is_on_the_host_dies_with_its_server_and_is_given_back_by_a_cancellation(
    end: str, statuses: list[str]
) -> None:
    setup = two()
    runtime, driver, log = setup.build()
    (server,) = runtime.servers

    def act() -> None:
        assert list(server.host.kept) == [1000]
        if end == "dies":
            runtime.server_down(0, 0.2)
        else:
            runtime.cancel(1, 0.2)
        assert server.host.free == server.host.total

    driver.at(0.2, act)
    driver.run(iter([Item(copy(item.request), item.output_tokens) for item in setup.items]))
    empty(runtime)
    assert [row[11] for row in sorted(log.requests)] == statuses


def test_a_host_gives_neighbours_first() -> None:
    host = Host(8, detailed=True)
    kept = [host.keep(job, 1, 2).ids for job in range(3)]
    assert kept == [[0, 1], [2, 3], [4, 5]]
    host.drop(0)
    host.drop(2)
    host.drop(7)
    assert host.keep(4, 1, 6).ids == [0, 1, 4, 5, 6, 7]
    assert host.free == 0


def test_several_plans_in_flight_are_refused() -> None:
    with pytest.raises(ValueError, match="one plan in flight"):
        Setup([], depth=2, host_blocks=1).build()


def with_host(seed: int) -> Setup:
    """A configuration of the oracle's own, with a host and copies on write."""
    setup = configuration(seed)
    setup.host_blocks, setup.copy_on_write = (8, 30, 1000)[seed % 3], seed % 2 == 0
    if seed % 4 == 3:
        setup.evictor = lambda: SwapLong(least=60)
    if setup.caching:
        setup.items = again(random.Random(seed), setup.items)
    return setup


def test_swaps_and_copies_of_the_engine_are_those_of_the_oracle() -> None:
    for seed in range(ORACLES):
        assert not differs(with_host(seed)), f"with_host({seed})"

"""Queues that want running jobs to make way, under the batcher that asks them: what the books promise of these orders,
on one machine whose passes all last a millisecond, so that starting anew from the tokens so far costs nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean
from typing import Any

import pytest

from airi_sim.core.errors import BadInput
from airi_sim.core.types import FOREVER, Affine, Horizon, Item, Plan, Request
from airi_sim.policies.batchers import ChunkedPrefill
from airi_sim.policies.evictors import LastIn
from airi_sim.policies.predictors import Perfect
from airi_sim.policies.preemption import Preemptive
from airi_sim.policies.queues import Edf, Fcfs, Lars, Las, Mlfq, Qoe, SkipJoinMlfq, Srpt
from tests.laws.queues import BUILT_IN, CONTESTING
from tests.laws.test_oracle import configuration, differs
from tests.laws.worlds import Setup
from tests.policies.fakes import job

PASS_S = 0.001


@dataclass(frozen=True)
class Steady:
    """Every pass lasts as long."""

    def affine(self, plan: Plan) -> Affine:
        return Affine(PASS_S)


def machine(items: list[Item], queue: Callable[[], Any], batcher: Callable[[], Any] = Preemptive) -> dict[int, float]:
    """When each request finished, on a server with one seat."""
    ran = Setup(items, queue=queue, batcher=batcher, seats=1, cost=Steady()).run()
    return {i: times[1] for i, times in ran.times.items()}


def jobs(seed: int, n: int = 12, window_s: float = 0.6) -> list[Item]:
    """Requests of one prompt token and 10 to 200 output tokens, that is milliseconds; deadlines of some slack."""
    pick = random.Random(seed)
    items = []
    for i, at in enumerate(sorted(pick.uniform(0, window_s) for _ in range(n))):
        work = pick.randint(10, 200)
        due = at + work * PASS_S * pick.uniform(1, 8)
        items.append(Item(Request(i, at, 1, deadline=due, tenant=f"t{i % 3}"), work))
    return items


def perfect(make: Callable[[Any], Any], items: list[Item]) -> Callable[[], Any]:
    """A queue whose predictor knows the lengths."""
    lengths = {item.request.id: item.output_tokens for item in items}

    def made() -> Any:
        predictor = Perfect()
        predictor.reveal(lambda asked: lengths[asked.request])
        return make(predictor)

    return made


def feasible(items: list[Item]) -> bool:
    """Whether some order meets all deadlines (Liu and Layland): in no interval is more work released and due than it
    lasts."""
    requests = [(item.request.arrival, item.request.deadline, item.output_tokens * PASS_S) for item in items]
    return all(
        sum(work for at, due, work in requests if at >= start and due <= end) <= end - start
        for start, _, _ in requests
        for _, end, _ in requests
        if end > start
    )


def test_edf_meets_all_deadlines_if_any_order_does() -> None:
    """Up to the pass in flight when a job comes, which nobody can interrupt."""
    met = missed_by_fcfs = 0
    for seed in range(60):
        items = jobs(seed, n=7, window_s=1.2)
        if not feasible(items):
            continue
        met += 1
        finish = machine(items, Edf)
        assert all(finish[item.request.id] <= item.request.deadline + 2 * PASS_S for item in items), seed
        finish = machine(items, Fcfs)
        missed_by_fcfs += any(finish[item.request.id] > item.request.deadline + 2 * PASS_S for item in items)
    assert met >= 10
    assert missed_by_fcfs >= met / 3


@pytest.mark.parametrize("rival", sorted(BUILT_IN))
def test_srpt_that_knows_the_lengths_has_the_least_mean_response(rival: str) -> None:
    """Schrage 1968, sample path by sample path; a pass a job for what nobody can interrupt."""
    for seed in range(3):
        items = jobs(seed)
        arrived = {item.request.id: item.request.arrival for item in items}
        best = machine(items, perfect(Srpt, items))
        other = machine(items, BUILT_IN[rival])
        assert mean(best[i] - arrived[i] for i in best) <= mean(other[i] - arrived[i] for i in other) + PASS_S


def test_srpt_is_what_an_independent_simulation_says() -> None:
    """Pass by pass, the least remaining of those that have come; at a tie whoever runs goes on."""
    items = jobs(5)
    left = {item.request.id: item.output_tokens for item in items}
    finish, now, last = dict[int, float](), items[0].request.arrival, -1
    while left:
        here = [item.request.id for item in items if item.request.id in left and item.request.arrival <= now]
        if not here:
            now = min(item.request.arrival for item in items if item.request.id in left)
            continue
        last = min(here, key=lambda i: (left[i], i != last, i))
        left[last] -= 1
        now += PASS_S
        if not left[last]:
            del left[last]
            finish[last] = now
    told = machine(items, perfect(Srpt, items))
    assert all(abs(told[i] - finish[i]) <= 1e-6 for i in finish)


def test_las_shares_between_two_and_lets_the_short_one_through() -> None:
    items = [Item(Request(0, 0.0, 1), 1000), Item(Request(1, 0.1, 1), 50)]
    finish = machine(items, lambda: Las(quantum=1))
    assert finish[1] == pytest.approx(0.15, abs=3 * PASS_S)
    items = [Item(Request(i, 0.0, 1), 300) for i in range(2)]
    finish = machine(items, lambda: Las(quantum=10))
    assert all(end == pytest.approx(0.6, abs=0.02) for end in finish.values())
    assert machine(items, Fcfs)[0] == pytest.approx(0.3)


@pytest.mark.parametrize("make", [lambda: Las(quantum=4), lambda: Mlfq(quantum=8), lambda: SkipJoinMlfq(quantum=8)])
def test_a_long_job_does_not_hold_up_the_short_ones(make: Callable[[], Any]) -> None:
    items = [Item(Request(0, 0.0, 1), 2000), *[Item(Request(i, 0.01 * i, 1), 5) for i in range(1, 30)]]
    late, soon = machine(items, Fcfs), machine(items, make)
    assert min(late[i] for i in range(1, 30)) > 2.0
    assert all(soon[i] - 0.01 * i < 0.05 for i in range(1, 30))


def test_mlfq_falls_by_quanta_and_rises_by_patience() -> None:
    queue = Mlfq(quantum=10, growth=2.0, levels=3, patience=5.0)
    assert [queue.level(job(1), tokens) for tokens in (0, 9, 10, 29, 30, 10**6)] == [0, 0, 1, 1, 2, 2]
    old, fresh = job(1, tokens=10, arrived=0.0), job(2, tokens=10, arrived=4.0)
    old.tokens += 30
    queue.requeue(old, 0.0)
    queue.push(fresh, 4.0)
    assert queue.peek(5.0) is fresh
    assert queue.stable(4.0, {}) == Horizon(FOREVER, 5.0)
    assert queue.peek(5.01) is old
    queue.pop(5.01)
    assert [queue.level(old, tokens) for tokens in (30, 39, 40)] == [0, 0, 1]


def test_long_prompts_skip_the_levels_they_would_use_up() -> None:
    queue = SkipJoinMlfq(quantum=4, growth=2.0, levels=4, prompt_rate=10.0)
    assert [queue.level(job(1, tokens=tokens), 0) for tokens in (1, 40, 41, 80, 160, 10_000)] == [0, 0, 1, 1, 2, 3]


def test_lars_lets_short_prompts_pass_a_long_one_under_way_which_keeps_its_memory() -> None:
    """A prompt of 6,000 tokens in chunks of 100, and short ones that come meanwhile."""
    items = [Item(Request(0, 0.0, 6000, deadline=9.0), 2)]
    items += [Item(Request(i, 0.05 * i, 100, deadline=0.05 * i + 0.1), 2) for i in range(1, 6)]

    def first(queue: Callable[[], Any]) -> tuple[list[float], int]:
        ran = Setup(items, queue=queue, batcher=Preemptive, seats=8, limit=100, cost=Steady()).run()
        return [ran.times[i][0] - items[i].request.arrival for i in range(6)], ran.preemptions

    eager, preemptions = first(lambda: Lars(prompt_s=1e-5))
    assert not preemptions
    assert max(eager[1:]) <= 4 * PASS_S
    patient, _ = first(Fcfs)
    assert max(patient[1:]) > 5 * max(eager[1:])
    assert eager[0] == pytest.approx(patient[0], abs=0.03)


def test_qoe_preempts_at_most_as_often_as_it_may() -> None:
    items = [Item(item.request, item.output_tokens) for item in jobs(3, n=20)]
    ran = Setup(items, lambda: Qoe(0.02, 500.0, 900.0, 0.02, preemptions=1), Preemptive, seats=2, cost=Steady()).run()
    counts = [row[13] for row in ran.log.jobs]
    assert max(counts) == 1


@pytest.mark.parametrize("name", sorted(CONTESTING))
def test_contests_do_preempt_and_only_under_a_batcher_that_asks(name: str) -> None:
    """Else equality with the oracle would prove nothing."""
    counts = {}
    for batcher in (ChunkedPrefill, Preemptive):
        made = [configuration(seed, regime="seats_full", batcher="chunked", queue=name) for seed in range(10)]
        for setup in made:
            setup.batcher = batcher
        counts[batcher] = sum(setup.run().preemptions for setup in made)
    assert counts[ChunkedPrefill] == 0
    assert (counts[Preemptive] > 0) == (name != "lars")


@pytest.mark.parametrize("name", ["las", "mlfq", "skip_join_mlfq"])
def test_a_contest_that_promises_too_much_is_caught(name: str) -> None:
    def liar() -> Any:
        queue = BUILT_IN[name]()
        honest = queue.contest
        queue.contest = lambda draft, now: (honest(draft, now)[0], Horizon(FOREVER))
        return queue

    caught = 0
    for seed in range(8):
        setup = configuration(seed, regime="seats_full", batcher="preemptive", queue="fcfs")
        setup.queue = liar
        caught += bool(differs(setup))
    assert caught >= 4


@pytest.mark.parametrize("seed", range(6))
def test_queues_without_a_contest_are_served_as_by_chunked_prefill(seed: int) -> None:
    regime = ["idle", "seats_full", "memory_short", "overload"][seed % 4]
    setup = configuration(seed, regime=regime, batcher="chunked", queue="sjf")
    setup.evictor = LastIn
    plain = setup.run()
    setup.batcher = Preemptive
    asked = setup.run()
    assert asked.log.decisions_hash() == plain.log.decisions_hash()
    assert asked.apart(plain.times) < 1e-9


def test_the_budget_of_a_pass_is_at_least_one_token() -> None:
    with pytest.raises(BadInput, match=r"^[^\n]*\.$"):
        Preemptive(tokens=0)

"""The bounds of fair queueing: of what tenants that both wait are served, and of what is admitted for them."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from math import inf, nextafter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airi_sim.core.errors import BadInput
from airi_sim.core.types import FOREVER, Item, Request
from airi_sim.policies.queues import Dlpm, Drr, Fcfs, Lcf, PredictedVtc, Rpm, Sfq, Stride, Vtc, Wfq
from tests.laws.worlds import Setup
from tests.policies.fakes import job
from tests.policies.ledger import Ledger, bound

WORKLOADS = int(os.environ.get("AIRI_FAIRNESS", "100"))
WEIGHTS = {"t0": 3.0, "t1": 0.5, "t2": 1.5}


def requests(pick: random.Random, n: int, rates: Any, shares: Any) -> list[Item]:
    """`n` requests of as many tenants as there are shares, at one of the rates."""
    rate, longest, output = pick.choice(rates), pick.choice([50, 300]), pick.choice([20, 80])
    items, at = [], 0.0
    for i in range(n):
        at += pick.expovariate(rate)
        tenant = f"t{pick.choices(range(len(shares)), shares)[0]}"
        items.append(Item(Request(i, at, pick.randint(1, longest), tenant=tenant), pick.randint(1, output)))
    return items


def measured(make: Callable[[], Any], items: list[Item], seats: int, weights: Any = None) -> tuple[float, float]:
    """(worst service difference of jointly backlogged tenants, its bound) on one replica with plenty of memory."""
    ledgers: list[Ledger] = []

    def kept() -> Ledger:
        ledgers.append(Ledger(make(), weights))
        return ledgers[-1]

    ran = Setup(items, queue=kept, seats=seats, limit=random.Random(len(items)).choice([64, 512])).run()
    assert not ran.preemptions
    return ledgers[0].worst, bound(ran.log.jobs, weights)


@pytest.mark.parametrize("chunk", range(10))
def test_vtc_keeps_its_bound_on_random_workloads(chunk: int) -> None:
    """AIRI_FAIRNESS=1000 on demand."""
    for seed in range(chunk, WORKLOADS, 10):
        pick = random.Random(seed)
        shares = [pick.choice([1, 1, 2, 8]) for _ in range(pick.randint(2, 4))]
        items, seats = requests(pick, 120, [20, 80, 400], shares), pick.choice([2, 4, 8, 16])
        worst, limit = measured(Vtc, items, seats)
        assert worst <= limit, seed
        worst, limit = measured(lambda: Vtc(weights=WEIGHTS), items, seats, WEIGHTS)
        assert worst <= limit, seed


def test_fcfs_exceeds_that_bound_in_an_overload_and_vtc_does_not() -> None:
    for seed in range(12):
        pick = random.Random(seed)
        items, seats = requests(pick, 300, [400], [8, 1]), pick.choice([2, 4])
        worst, limit = measured(Fcfs, items, seats)
        assert worst > limit, seed
        worst, limit = measured(Vtc, items, seats)
        assert worst <= limit, seed


def test_weights_are_kept_to_only_if_given() -> None:
    """Measured against weights, Vtc without them is unfair: the test above would notice."""
    beyond = 0
    for seed in range(6):
        items = requests(random.Random(seed), 300, [400], [1, 1])
        weights = {"t0": 8.0, "t1": 1.0}
        worst, limit = measured(Vtc, items, 2, weights)
        beyond += worst > limit
        worst, limit = measured(lambda: Vtc(weights={"t0": 8.0, "t1": 1.0}), items, 2, weights)
        assert worst <= limit
    assert beyond >= 4


def test_who_comes_back_from_idle_has_the_server_under_lcf_and_not_under_vtc() -> None:
    def served_first(queue: Vtc) -> str:
        queue.push(job(1, tenant="busy"), 0.0)
        queue.serve({"busy": 1}, 500)
        queue.push(job(2, tenant="idler"), 1.0)
        return "".join(queue.pop(1.0).tenant[0] for _ in range(2)) + f" {queue.counter('idler'):.0f}"

    assert served_first(Lcf()) == "ib 10"
    assert served_first(Vtc()) == "bi 1010"


def test_predicted_vtc_charges_the_prediction_and_settles_the_difference() -> None:
    class Twenty:
        seen: list[int] = []

        def predict(self, waiting: Any) -> float:
            return 20.0

        def learn(self, waiting: Any, tokens_out: int) -> None:
            self.seen.append(tokens_out)

    queue, admitted = PredictedVtc(predictor=Twenty()), job(1, tokens=10, tenant="a")
    queue.push(admitted, 0.0)
    queue.pop(0.0)
    assert queue.counter("a") == 10 + 2 * 20
    queue.over(admitted, 33, 5.0)
    assert queue.counter("a") == 10 + 2 * 33
    assert Twenty.seen == [33]


COSTS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 40), st.booleans()), min_size=1, max_size=80)
SHARES = st.dictionaries(st.sampled_from("abc"), st.sampled_from([0.5, 1.0, 3.0]), max_size=3)


def admitted_difference(queue: Any, weights: dict[str, float], operations: Any, cost: Callable[[Any], float]) -> float:
    """Largest change of admitted cost / weight between two tenants while both wait. A job is admitted after a push
    where the operation says so, and all at the end."""
    ledger = Ledger(queue, weights, w_out=0)
    ledger.w_in = 0
    for id, (tenant, tokens, admits) in enumerate(operations):
        ledger.push(job(id, tokens=tokens, tenant=tenant), float(id))
        if admits:
            admit(ledger, cost)
    while len(ledger):
        admit(ledger, cost)
    return ledger.worst


def admit(ledger: Ledger, cost: Callable[[Any], float]) -> None:
    head = ledger.peek(0.0)
    ledger.w_in = cost(head) / head.tokens
    assert ledger.pop(0.0) is head


def tokens_of(waiting: Any) -> float:
    return float(waiting.tokens)


@pytest.mark.parametrize("make", [Sfq, Wfq])
@given(operations=COSTS, weights=SHARES)
def test_start_and_finish_tags_keep_within_a_job_of_each(make: Any, operations: Any, weights: dict[str, float]) -> None:
    most = max(tokens / weights.get(tenant, 1.0) for tenant, tokens, _ in operations)
    queue = make(weights, w_in=1.0, w_out=0.0)
    assert admitted_difference(queue, weights, operations, tokens_of) <= 2 * most + 1e-6


@given(operations=COSTS, weights=SHARES)
def test_stride_admits_jobs_in_proportion(operations: Any, weights: dict[str, float]) -> None:
    most = max(1 / weights.get(tenant, 1.0) for tenant, _, _ in operations)
    assert admitted_difference(Stride(weights), weights, operations, lambda _: 1.0) <= 2 * most + 1e-6


@given(operations=COSTS, weights=SHARES, quantum=st.sampled_from([10.0, 40.0, 200.0]))
def test_deficit_round_robin_keeps_within_a_quantum_and_two_jobs(
    operations: Any, weights: dict[str, float], quantum: float
) -> None:
    largest = max(tokens / weights.get(tenant, 1.0) for tenant, tokens, _ in operations)
    queue = Drr(quantum, weights, w_in=1.0, w_out=0.0)
    assert admitted_difference(queue, weights, operations, tokens_of) <= quantum + 2 * largest + 1e-6


@given(operations=COSTS)
def test_first_come_first_served_does_not(operations: Any) -> None:
    """The control: one tenant's burst goes before all others, so nothing bounds the difference."""
    burst = [("a", 40, False)] * 20 + [("b", 1, False)] * 20
    assert admitted_difference(Fcfs(), {}, [*burst, *operations], tokens_of) > 40 + 2 * 40


@pytest.mark.parametrize("make", [Sfq, Wfq, Stride, Drr])
def test_who_was_preempted_goes_before_all_others(make: Any) -> None:
    """Even before a smaller number that starts when it was admitted (in virtual time)."""
    queue = make()
    for id, tenant in ((5, "a"), (4, "b"), (3, "c")):
        queue.push(job(id, tenant=tenant), 0.0)
    queue.pop(0.0)
    preempted = queue.pop(0.0)
    queue.requeue(preempted, 1.0)
    queue.push(job(0, tokens=1, tenant="d"), 1.0)
    assert queue.peek(1.0) is preempted
    assert queue.pop(1.0) is preempted


@pytest.mark.parametrize("make", [Sfq, Wfq])
def test_a_cancelled_job_costs_its_tenant_nothing_if_it_was_its_last(make: Any) -> None:
    queue, cancelled = make(w_out=0.0), [job(k, tokens=1000, tenant="a") for k in range(1, 4)]
    queue.push(job(0, tokens=10, tenant="a"), 0.0)
    for waiting in cancelled:
        queue.push(waiting, 0.0)
    for waiting in reversed(cancelled):
        queue.remove(waiting, 0.0)
    for id, tenant in ((5, "b"), (6, "b"), (7, "b"), (4, "a")):
        queue.push(job(id, tokens=10, tenant=tenant), 0.0)
    assert "".join(queue.pop(0.0).tenant for _ in range(5)) == "ababb"


def test_a_job_taken_back_and_cancelled_has_cost_its_tenant_what_it_cost() -> None:
    queue, running = Sfq(w_out=0.0), job(0, tokens=1000, tenant="a")
    queue.push(running, 0.0)
    queue.push(job(1, tokens=10, tenant="b"), 0.0)
    queue.requeue(queue.pop(0.0), 0.0)
    queue.remove(running, 0.0)
    queue.push(job(2, tokens=10, tenant="a"), 0.0)
    queue.push(job(3, tokens=10, tenant="b"), 0.0)
    assert "".join(queue.pop(0.0).tenant for _ in range(3)) == "bba"


def test_two_rounds_of_deficit_round_robin_by_hand() -> None:
    """Quantum 500: a keeps 300 of its first turn and has 800 in the second, b nothing and 500, c 300 and 800."""
    queue, sizes = Drr(500.0, w_in=1.0, w_out=0.0), {"a": [200, 750, 20], "b": [500, 500], "c": [200, 600, 100]}
    for tenant, packets in sizes.items():
        for i, tokens in enumerate(packets):
            queue.push(job(10 * "abc".index(tenant) + i, tokens=tokens, tenant=tenant), 0.0)
    order = [(head.tenant, head.tokens) for head in (queue.pop(0.0) for _ in range(8))]
    first, second = [("a", 200), ("b", 500), ("c", 200)], [("a", 750), ("a", 20), ("b", 500), ("c", 600), ("c", 100)]
    assert order == first + second


@given(
    arrivals=st.lists(st.tuples(st.floats(0, 3), st.sampled_from("ab")), min_size=1, max_size=40),
    limit=st.integers(1, 4),
)
def test_requests_per_minute_holds_in_every_window_and_wakes_at_the_right_moment(arrivals: Any, limit: int) -> None:
    queue, now, entered = Rpm(limit, window_s=10.0), 0.0, list[tuple[float, str]]()
    todo = [(sum(gap for gap, _ in arrivals[: i + 1]), tenant) for i, (_, tenant) in enumerate(arrivals)]
    while todo or len(queue):
        while todo and todo[0][0] <= now:
            queue.push(job(len(todo), tenant=todo[0][1], arrived=todo[0][0]), now)
            todo.pop(0)
        if queue.peek(now) is not None:
            entered.append((now, queue.pop(now).tenant))
            continue
        until = queue.stable(now, {}).until if len(queue) else FOREVER
        assert queue.peek(min(until, now + 1e6)) is None
        now = min(todo[0][0] if todo else FOREVER, until + 1e-9)
    for at, tenant in entered:
        assert sum(at - 10.0 <= other <= at and who == tenant for other, who in entered) <= limit
    assert len(entered) == len(arrivals)


@given(start=st.integers(0, 10**6), gap=st.sampled_from([0.025, 0.0161, 1 / 30, 0.0625]))
def test_a_server_woken_when_a_hold_ends_repeats_its_passes_without_meeting_the_end_of_the_next(
    start: int, gap: float
) -> None:
    """Else rounding would say who is first, and passes run at once would be decided unlike passes run one by one."""
    queue, admitted = Rpm(1, window_s=0.5), [start / 1e3 + k * gap for k in range(8)]
    for k, now in enumerate(admitted):
        queue.push(job(k, tenant=f"t{k}"), now)
        assert queue.pop(now).id == k * 1000
    untils = [queue.held_until(f"t{k}") for k in range(8)]
    assert all(0.5 <= until - now + 1e-9 < 0.5 + 1e-6 for until, now in zip(untils, admitted, strict=True))
    woken = nextafter(untils[0], inf)
    assert all(abs(woken + k * gap - until) > 1e-10 for k, until in enumerate(untils) if k)


@pytest.mark.parametrize(
    ("make", "owed"),
    [(lambda: Vtc(1, 2), [100, 100, 200]), (lambda: Dlpm(quantum=1, w_in=1), [99, 0, 99])],
    ids=["vtc", "dlpm"],
)
def test_a_job_that_was_preempted_elsewhere_pays_where_it_is_tried_again(make: Any, owed: list[int]) -> None:
    """The server that it had paid has died. Whoever is admitted under Dlpm had a deficit of 1."""
    queue, retried = make(), job(1, tokens=100, tenant="a")
    retried.preemptions = 2
    found = []
    for come in (queue.push, queue.requeue, queue.push):
        come(retried, 0.0)
        assert queue.pop(0.0) is retried
        found.append(queue.counter("a") if isinstance(queue, Vtc) else -queue.deficit("a"))
    assert found == owed


def test_dlpm_prefers_the_longer_cached_prefix_as_long_as_its_tenant_has_deficit() -> None:
    queue = Dlpm(quantum=100, w_in=1, w_out=1)
    queue.push(job(1, tokens=64, tenant="a", prefix=(1, 2, 3, 4)), 0.0)
    assert queue.pop(0.0).request == 1
    queue.push(job(2, tokens=40, tenant="b", prefix=(9, 8)), 1.0)
    queue.push(job(3, tokens=64, tenant="a", prefix=(1, 2, 3, 7)), 2.0)
    assert queue.matched(job(3, tokens=64, prefix=(1, 2, 3, 7))) == 48
    assert queue.peek(2.0).request == 3
    assert queue.deficit("a") == 0  # a's 36 were lost when nobody of it waited
    assert queue.stable(2.0, {"a": 2}).passes == 50
    queue.serve({"a": 2}, 49)
    assert queue.peek(2.0).request == 3
    queue.serve({"a": 2}, 1)
    assert queue.peek(2.0).request == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: Sfq(weights={"a": 0}),
        lambda: Sfq(w_in=0, w_out=0),
        lambda: Wfq(predictor=3),  # type: ignore[arg-type]
        lambda: Stride(weights={"a": -1}),
        lambda: Drr(quantum=0),
        lambda: Rpm(limit=0),
        lambda: Rpm(window_s=0),
        lambda: Dlpm(quantum=0),
        lambda: PredictedVtc(predictor="history"),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(make: Callable[[], Any]) -> None:
    with pytest.raises(BadInput, match=r"^[^\n]*\.$"):
        make()

"""Each queue against a naive reference, and each horizon against brute force."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airi_sim.core.errors import BadInput
from airi_sim.core.types import FOREVER, Job
from airi_sim.policies.queues import Fcfs, PriorityAging, Sjf, Vtc
from airi_sim.policies.queues.waiting import SLACK
from tests.policies.fakes import job

PATIENCE = 5.0


class Sorted:
    """The reference: a list of waiting jobs, searched with a key at every question."""

    def __init__(self, key: Callable[[Job, float], Any]) -> None:
        self.key = key
        self.jobs: list[Job] = []

    def peek(self, now: float) -> Job | None:
        return min(self.jobs, key=lambda waiting: self.key(waiting, now), default=None)


def aging_key(waiting: Job, now: float) -> tuple[Any, ...]:
    if now > waiting.arrived + PATIENCE:
        return (0, waiting.arrived, waiting.id)
    return (1, waiting.priority, waiting.arrived, waiting.id)


KEYED: list[tuple[Callable[[], Any], Callable[[Job, float], Any]]] = [
    (Sjf, lambda waiting, _now: (waiting.tokens, waiting.id)),
    (lambda: PriorityAging(PATIENCE), aging_key),
]

OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["push", "push", "pop", "requeue", "remove"]), st.integers(0, 5), st.integers(0, 4)),
    max_size=60,
)


@pytest.mark.parametrize(("make", "key"), KEYED, ids=["sjf", "priority_aging"])
@given(operations=OPERATIONS)
def test_keyed_queues_serve_as_a_list_searched_anew(make: Any, key: Any, operations: Any) -> None:
    queue, reference = make(), Sorted(key)
    running: list[Job] = []
    for step, (operation, size, pause) in enumerate(operations):
        now = step + pause / 4
        if operation == "push":
            waiting = job(step, tokens=1 + size, priority=pause, arrived=now)
            queue.push(waiting, now)
            reference.jobs.append(waiting)
        elif operation == "requeue" and running:
            waiting = running.pop()
            waiting.tokens += size
            waiting.preemptions += 1
            queue.requeue(waiting, now)
            reference.jobs.append(waiting)
        elif operation == "remove" and reference.jobs:
            waiting = reference.jobs.pop(size % len(reference.jobs))
            queue.remove(waiting, now)
        elif operation == "pop" and reference.jobs:
            expected = reference.peek(now)
            assert queue.pop(now) is expected
            reference.jobs.remove(expected)
            running.append(expected)
        assert queue.peek(now) is reference.peek(now)
        assert len(queue) == len(reference.jobs)


@given(operations=OPERATIONS)
def test_fcfs_serves_in_order_of_arrival_with_the_preempted_in_front(operations: Any) -> None:
    queue, reference, running = Fcfs(), list[Job](), list[Job]()
    for step, (operation, size, _) in enumerate(operations):
        if operation == "push":
            reference.append(job(step))
            queue.push(reference[-1], step)
        elif operation == "requeue" and running:
            reference.insert(0, running.pop())
            queue.requeue(reference[0], step)
        elif operation == "remove" and reference:
            queue.remove(reference.pop(size % len(reference)), step)
        elif operation == "pop" and reference:
            running.append(reference.pop(0))
            assert queue.pop(step) is running[-1]
        assert queue.peek(step) is (reference[0] if reference else None)
        assert len(queue) == len(reference)


def test_sjf_by_prediction_asks_once_and_beats_prompt_length() -> None:
    class Backwards:
        asked = 0

        def predict(self, waiting: Job) -> float:
            self.asked += 1
            return -waiting.tokens

        def learn(self, waiting: Job, tokens_out: int) -> None:
            raise AssertionError("a queue learns nothing")

    predictor = Backwards()
    queue = Sjf(predictor)
    for id, tokens in enumerate([3, 9, 5]):
        queue.push(job(id, tokens), 0.0)
    assert [queue.pop(0.0).tokens for _ in range(3)] == [9, 5, 3]
    assert predictor.asked == 3


def test_a_job_that_left_and_came_back_counts_as_it_is_now() -> None:
    queue, back = Sjf(), job(1, tokens=5)
    queue.push(back, 0.0)
    queue.remove(back, 0.0)
    back.tokens = 50
    queue.push(back, 1.0)
    queue.push(job(2, tokens=10), 1.0)
    assert [queue.pop(1.0).tokens, queue.pop(1.0).tokens] == [10, 50]


@pytest.mark.parametrize("patience", [PATIENCE, inf])
def test_memory_of_priority_aging_follows_those_who_wait(patience: float) -> None:
    queue = PriorityAging(patience)
    queue.push(job(0, priority=9, arrived=0.0), 0.0)
    for id in range(1, 2000):
        queue.push(job(id, arrived=0.0), 0.0)
        queue.pop(0.0)
    assert len(queue) == 1
    assert max(len(queue.waiting.entries), len(queue.oldest.entries)) <= 2 * (len(queue) + 1) + SLACK + 1


@given(
    waiting=st.lists(st.tuples(st.integers(0, 3), st.floats(0, 20)), min_size=1, max_size=8),
    now=st.floats(0, 30),
    later=st.lists(st.floats(0, 40), max_size=20),
)
def test_horizon_of_priority_aging_is_exact(waiting: Any, now: float, later: list[float]) -> None:
    """At every time up to `until` the head is the same, and just after it the head is another."""
    queue = PriorityAging(PATIENCE)
    for id, (priority, arrived) in enumerate(waiting):
        queue.push(job(id, priority=priority, arrived=arrived), now)
    head = queue.peek(now)
    horizon = queue.stable(now, {})
    assert horizon.passes == FOREVER
    for time in [now, *(t for t in [*later, horizon.until] if now <= t <= horizon.until)]:
        assert queue.peek(time) is head
    if horizon.until < inf:
        assert queue.peek(horizon.until + 1e-6) is not head


def test_patience_is_strict() -> None:
    queue = PriorityAging(PATIENCE)
    queue.push(job(1, priority=1, arrived=1.0), 1.0)
    queue.push(job(2, priority=0, arrived=2.0), 2.0)
    assert queue.peek(1.0 + PATIENCE).priority == 0
    assert queue.peek(1.0 + PATIENCE + 1e-9).priority == 1


TENANTS = "abcd"
WEIGHTS = st.dictionaries(st.sampled_from(TENANTS), st.sampled_from([0.1, 0.5, 1, 1.5, 3, 1 / 3]), max_size=4)
PRICES = st.sampled_from([(1, 2), (1.0, 0.3), (0.1, 1.7), (2, 1)])


class NaiveVtc:
    """The pseudocode of the artifact with exact fractions, one pass at a time."""

    def __init__(self, w_in: Any, w_out: Any, weights: dict[str, float]) -> None:
        from fractions import Fraction

        def exact(value: float) -> Fraction:
            return Fraction(value).limit_denominator(1_000_000)

        self.w_in, self.w_out = exact(w_in), exact(w_out)
        self.weight = {tenant: exact(weights.get(tenant, 1)) for tenant in TENANTS}
        self.counter = {tenant: Fraction(0) for tenant in TENANTS}
        self.queues: dict[str, list[Job]] = {tenant: [] for tenant in TENANTS}

    def backlogged(self) -> list[str]:
        return [tenant for tenant in TENANTS if self.queues[tenant]]

    def push(self, arrived: Job) -> None:
        mine, others = arrived.tenant, [t for t in self.backlogged() if t != arrived.tenant]
        if not self.queues[mine] and others:
            self.counter[mine] = max(self.counter[mine], min(self.counter[t] for t in others))
        self.queues[mine].append(arrived)

    def requeue(self, preempted: Job) -> None:
        self.queues[preempted.tenant].insert(0, preempted)

    def peek(self) -> Job | None:
        tenants = self.backlogged()
        return self.queues[min(tenants, key=lambda t: (self.counter[t], t))][0] if tenants else None

    def pop(self) -> Job:
        admitted = self.peek()
        assert admitted is not None
        self.queues[admitted.tenant].pop(0)
        if admitted.preemptions == 0:
            self.counter[admitted.tenant] += self.w_in * admitted.tokens / self.weight[admitted.tenant]
        return admitted

    def one_pass(self, decoding: dict[str, int]) -> None:
        for tenant, jobs in decoding.items():
            for _ in range(jobs):
                self.counter[tenant] += self.w_out / self.weight[tenant]


@given(
    prices=PRICES,
    weights=WEIGHTS,
    operations=st.lists(
        st.tuples(
            st.sampled_from(["push", "push", "pop", "requeue", "remove", "serve"]),
            st.sampled_from(TENANTS),
            st.integers(1, 40),
        ),
        max_size=60,
    ),
)
def test_vtc_is_the_pseudocode_of_its_artifact(prices: Any, weights: Any, operations: Any) -> None:
    queue, reference, running = Vtc(*prices, weights), NaiveVtc(*prices, weights), list[Job]()
    for step, (operation, tenant, amount) in enumerate(operations):
        if operation == "push":
            arrived = job(step, tokens=amount, tenant=tenant)
            queue.push(arrived, step)
            reference.push(arrived)
        elif operation == "pop" and len(queue):
            running.append(reference.pop())
            assert queue.pop(step) is running[-1]
        elif operation == "requeue" and running:
            preempted = running.pop()
            preempted.preemptions += 1
            preempted.tokens += amount
            queue.requeue(preempted, step)
            reference.requeue(preempted)
        elif operation == "remove" and reference.queues[tenant]:
            queue.remove(reference.queues[tenant].pop(amount % len(reference.queues[tenant])), step)
        elif operation == "serve":
            decoding = {tenant: 1 + amount % 3, "b": 2}
            queue.serve(decoding, amount)
            for _ in range(amount):
                reference.one_pass(decoding)
        assert queue.peek(step) is reference.peek()
        assert len(queue) == sum(map(len, reference.queues.values()))
        assert {t: queue.counter(t) for t in TENANTS} == {t: float(c) for t, c in reference.counter.items()}


@given(
    prices=PRICES,
    weights=WEIGHTS,
    served=st.dictionaries(st.sampled_from(TENANTS), st.integers(0, 60), max_size=4),
    waiting=st.sets(st.sampled_from(TENANTS), min_size=1),
    decoding=st.dictionaries(st.sampled_from(TENANTS), st.integers(1, 4), max_size=4),
)
def test_horizon_of_vtc_is_exact(prices: Any, weights: Any, served: Any, waiting: Any, decoding: Any) -> None:
    """Advanced pass by pass, the head changes after exactly as many passes as `stable` says, or never."""
    queue = Vtc(*prices, weights)
    queue.serve(served, 1)
    for id, tenant in enumerate(sorted(waiting)):
        queue.requeue(job(id, tenant=tenant), 0.0)  # no lift, so counters stay apart
    head = queue.peek(0.0)
    horizon = queue.stable(0.0, decoding)
    assert horizon.until == inf
    assert horizon.passes >= 1
    for _ in range(min(horizon.passes, 300) - 1):
        queue.serve(decoding, 1)
        assert queue.peek(0.0) is head
    if horizon.passes <= 300:
        queue.serve(decoding, 1)
        assert queue.peek(0.0) is not head
    elif horizon.passes < FOREVER:
        queue.serve(decoding, horizon.passes - 300)
        assert queue.peek(0.0) is head
        queue.serve(decoding, 1)
        assert queue.peek(0.0) is not head


@pytest.mark.parametrize(("behind", "ahead", "passes"), [("b", "a", 5), ("a", "b", 6)])
def test_at_a_tie_of_counters_the_smaller_name_is_next(behind: str, ahead: str, passes: int) -> None:
    queue = Vtc()
    queue.serve({ahead: 5}, 1)
    for tenant in (behind, ahead):
        queue.requeue(job(1, tenant=tenant), 0.0)
    assert queue.stable(0.0, {behind: 1}).passes == passes
    queue.serve({behind: 1}, 5)
    assert queue.peek(0.0).tenant == "a"


def test_vtc_gives_nothing_for_idling() -> None:
    queue = Vtc()
    queue.push(job(1, tenant="busy"), 0.0)
    queue.serve({"busy": 1}, 500)
    queue.push(job(2, tenant="idler"), 1.0)
    assert queue.counter("idler") == queue.counter("busy") == 1000.0


def test_vtc_charges_the_prompt_once() -> None:
    queue, admitted = Vtc(w_in=3), job(1, tokens=10, tenant="a")
    queue.push(admitted, 0.0)
    queue.pop(0.0)
    admitted.preemptions, admitted.tokens = 1, 25
    queue.requeue(admitted, 1.0)
    queue.pop(1.0)
    assert queue.counter("a") == 30.0


@pytest.mark.parametrize(
    "make",
    [
        lambda: PriorityAging(0),
        lambda: PriorityAging(-1.0),
        lambda: PriorityAging(float("nan")),
        lambda: Vtc(w_in=0),
        lambda: Vtc(w_out=-2),
        lambda: Vtc(w_out=inf),
        lambda: Vtc(weights={"a": 0}),
        lambda: Vtc(weights={"a": 1e-9}),
        lambda: Sjf(predictor="perfect"),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(make: Callable[[], Any]) -> None:
    with pytest.raises(BadInput, match=r"^[^\n]*\.$"):
        make()


@pytest.mark.parametrize(
    ("queue", "timeless", "account"),
    [(Fcfs(), True, None), (Sjf(), True, None), (PriorityAging(), False, None), (Vtc(), False, "tenant")],
    ids=lambda value: type(value).__name__,
)
def test_what_queues_promise(queue: Any, timeless: bool, account: str | None) -> None:
    assert (queue.timeless, queue.account, len(queue), queue.peek(0.0)) == (timeless, account, 0, None)

"""The virtual token counter against the pseudocode of its artifact, and its horizon against brute force."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airi_sim.core.errors import BadInput
from airi_sim.core.types import FOREVER, Job
from airi_sim.policies.queues import Vtc
from tests.policies.fakes import job

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
        lambda: Vtc(w_in=0),
        lambda: Vtc(w_out=-2),
        lambda: Vtc(w_out=inf),
        lambda: Vtc(weights={"a": 0}),
        lambda: Vtc(weights={"a": 1e-9}),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(make: Callable[[], Any]) -> None:
    with pytest.raises(BadInput, match=r"^[^\n]*\.$"):
        make()

"""The token bucket keeps its bound in every window, and a wait it asks for is exactly long enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airi_sim.core.errors import BadInput
from airi_sim.core.types import Job, Verdict
from airi_sim.policies.admission import Always, TokenBucket
from tests.policies.fakes import Columns, job

VIEW = Columns([0])
ARRIVALS = st.lists(
    st.tuples(st.floats(0, 3), st.integers(1, 60), st.sampled_from("ab")), min_size=1, max_size=25
)  # seconds since the last one, tokens, tenant


def gateway(bucket: TokenBucket, arrivals: Any) -> Iterator[tuple[float, Job, Verdict]]:
    """Ask as the runtime does: at arrival, and again after `retry_s`; every answer with its time."""
    now, agenda = 0.0, []
    for id, (pause, tokens, tenant) in enumerate(arrivals):
        now += pause
        agenda.append((now, id, job(id, tokens, tenant=tenant, arrived=now)))
    while agenda:
        now, order, asking = heappop(agenda)
        verdict = bucket.admit(asking, VIEW, now)
        yield now, asking, verdict
        if verdict.retry_s is not None:
            heappush(agenda, (now + verdict.retry_s, order, asking))


def windows_hold(entered: list[tuple[float, int]], rate: float, capacity: float) -> bool:
    """Tokens in every closed window from one entry to another are at most capacity + rate * its length."""
    for first, (start, _) in enumerate(entered):
        total = 0
        for end, tokens in entered[first:]:
            total += tokens
            if total > (capacity + rate * (end - start)) * (1 + 1e-9):
                return False
    return True


@given(arrivals=ARRIVALS, rate=st.floats(0.5, 100), capacity=st.integers(20, 100), wait=st.booleans())
def test_no_window_carries_more_than_the_bucket_and_its_rate(
    arrivals: Any, rate: float, capacity: int, wait: bool
) -> None:
    entered: dict[str, list[tuple[float, int]]] = {"a": [], "b": []}
    for now, asking, verdict in gateway(TokenBucket(rate, capacity, wait=wait), arrivals):
        if verdict.admit:
            entered[asking.tenant].append((now, asking.tokens))
    assert all(windows_hold(entries, rate, capacity) for entries in entered.values())


@given(arrivals=ARRIVALS, rate=st.floats(0.5, 1e6), capacity=st.integers(20, 100))
def test_who_waits_is_asked_once_more_enters_then_and_is_not_overtaken(
    arrivals: Any, rate: float, capacity: int
) -> None:
    asked: dict[int, list[Verdict]] = {}
    entered: list[int] = []
    for _, asking, verdict in gateway(TokenBucket(rate, capacity, per_tenant=False), arrivals):
        asked.setdefault(asking.id, []).append(verdict)
        if verdict.admit:
            entered.append(asking.id)
        elif asking.tokens <= capacity:
            assert verdict.retry_s is not None
            assert verdict.retry_s > 0
            assert verdict.reason
    assert all(len(verdicts) <= 2 for verdicts in asked.values())
    assert entered == sorted(entered) == [id for id, verdicts in asked.items() if verdicts[-1].admit]
    assert [id for id, (_, tokens, _) in enumerate(arrivals) if tokens <= capacity] == [id // 1000 for id in entered]


@given(arrivals=ARRIVALS, rate=st.floats(0.5, 50), capacity=st.integers(60, 100))
def test_a_waiting_job_enters_no_later_than_it_must(arrivals: Any, rate: float, capacity: int) -> None:
    """An independent bucket, filled second by second: just before it enters, the level was short of its cost."""
    level, last = float(capacity), 0.0
    waited = set()
    for now, asking, verdict in gateway(TokenBucket(rate, capacity, per_tenant=False), arrivals):
        if verdict.admit:
            level = min(capacity, level + rate * (now - last)) - asking.tokens
            last = now
            assert level >= -1e-6
            assert asking.id not in waited or level == pytest.approx(0, abs=1e-6)
        else:
            waited.add(asking.id)


def test_asked_too_early_it_says_how_long_is_left() -> None:
    bucket = TokenBucket(rate=10, capacity=10)
    assert bucket.admit(job(1, 10), VIEW, 0.0).admit
    late = job(2, 5)
    assert bucket.admit(late, VIEW, 0.0) == Verdict(False, 0.5, "over 10 tokens/s")
    assert bucket.admit(late, VIEW, 0.25) == Verdict(False, 0.25, "over 10 tokens/s")
    assert bucket.admit(late, VIEW, 0.5).admit


def test_a_wait_is_long_enough_although_floats_round() -> None:
    bucket, now = TokenBucket(rate=6, capacity=10), 0.65
    assert bucket.admit(job(1, 10), VIEW, 0.0).admit
    late = job(2, 10)
    wait_s = bucket.admit(late, VIEW, now).retry_s
    assert wait_s is not None
    assert now + (10 / 6 - now) < 10 / 6  # what a plain difference would do
    assert bucket.admit(late, VIEW, now + wait_s).admit


def test_what_can_never_fit_is_rejected_and_costs_nothing() -> None:
    bucket = TokenBucket(rate=10, capacity=10)
    verdict = bucket.admit(job(1, 11), VIEW, 0.0)
    assert (verdict.admit, verdict.retry_s) == (False, None)
    assert "11 tokens" in verdict.reason
    assert bucket.admit(job(2, 10), VIEW, 0.0).admit


def test_without_waiting_the_early_are_rejected_and_cost_nothing() -> None:
    bucket = TokenBucket(rate=10, capacity=10, wait=False)
    assert bucket.admit(job(1, 10), VIEW, 0.0).admit
    assert bucket.admit(job(2, 5), VIEW, 0.0) == Verdict(False, None, "over 10 tokens/s")
    assert bucket.admit(job(3, 5), VIEW, 0.5).admit


@pytest.mark.parametrize(("charge_output", "budget", "cost"), [(True, 30, 40), (False, 30, 10), (True, 0, 10)])
def test_the_output_budget_is_charged_if_the_user_set_one(charge_output: bool, budget: int, cost: int) -> None:
    bucket = TokenBucket(rate=1, capacity=100, charge_output=charge_output)
    bucket.admit(job(1, 10, budget=budget), VIEW, 0.0)
    assert bucket.admit(job(2, 100), VIEW, 0.0).retry_s == cost


def test_tenants_do_not_drain_each_other_unless_they_share() -> None:
    for per_tenant in (True, False):
        bucket = TokenBucket(rate=1, capacity=10, per_tenant=per_tenant)
        verdicts = [bucket.admit(job(id, 10, tenant=tenant), VIEW, 0.0).admit for id, tenant in enumerate("ab")]
        assert verdicts == [True, per_tenant]


def test_always_admits() -> None:
    assert all(Always().admit(job(id), VIEW, float(id)) == Verdict(True) for id in range(3))


@pytest.mark.parametrize(
    "make",
    [
        lambda: TokenBucket(rate=0, capacity=1),
        lambda: TokenBucket(rate=inf, capacity=1),
        lambda: TokenBucket(rate=1, capacity=0),
        lambda: TokenBucket(rate=1, capacity=inf),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(make: Callable[[], Any]) -> None:
    with pytest.raises(BadInput, match=r"^[^\n]*\.$"):
        make()

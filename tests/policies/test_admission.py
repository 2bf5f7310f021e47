"""The token bucket keeps its bound in every window, and a wait it asks for is exactly long enough; limits are kept
whatever comes; who is turned away under load is who the rule says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heappop, heappush, heapreplace
from math import inf
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airi_sim.core.errors import BadInput
from airi_sim.core.types import Job, Verdict
from airi_sim.policies.admission import (
    AimdLimit,
    Always,
    ConcurrencyLimit,
    DeadlineDrop,
    EarlyReject,
    GradientLimit,
    Never,
    Quota,
    Saturation,
    TierShed,
    TokenBucket,
)
from tests.policies.fakes import Columns, job

VIEW = Columns([0])
ARRIVALS = st.lists(
    st.tuples(st.floats(0, 3), st.integers(1, 60), st.sampled_from("ab")), min_size=1, max_size=25
)  # seconds since the last one, tokens, tenant


def gateway(bucket: Any, arrivals: Any) -> Iterator[tuple[float, Job, Verdict]]:
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


def test_never_admits_and_says_so() -> None:
    verdict = Never().admit(job(), VIEW, 0.0)
    assert (verdict.admit, verdict.retry_s) == (False, None) and verdict.reason


@given(arrivals=ARRIVALS, tokens=st.integers(20, 100), window_s=st.floats(0.1, 5.0), wait=st.booleans())
def test_no_tenant_gets_more_than_its_quota_in_a_window(
    arrivals: Any, tokens: int, window_s: float, wait: bool
) -> None:
    used: dict[tuple[str, int], int] = {}
    for now, asking, verdict in gateway(Quota(tokens, window_s, wait=wait), arrivals):
        if verdict.admit:
            window = (asking.tenant, int(now / window_s))
            used[window] = used.get(window, 0) + asking.tokens
        else:
            assert (verdict.retry_s is not None) == (wait and asking.tokens <= tokens)
    assert all(spent <= tokens for spent in used.values())


def test_a_quota_is_whole_again_when_the_next_window_begins() -> None:
    quota = Quota(tokens=10, window_s=2.0, wait=True)
    assert quota.admit(job(1, 8), VIEW, 1.5).admit
    late = quota.admit(job(2, 5), VIEW, 1.5)
    assert late == Verdict(False, 0.5, "over 10 tokens in 2 s")
    assert quota.admit(job(3, 2), VIEW, 1.6).admit  # smaller ones may still get in
    assert quota.admit(job(2, 5), VIEW, 2.0).admit


@given(steps=st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=60), limit=st.integers(1, 5))
def test_never_more_than_the_limit_are_inside(steps: list[tuple[bool, int]], limit: int) -> None:
    policy, inside = ConcurrencyLimit(limit), set()
    for leaves, id in steps:
        if leaves:
            policy.over(job(id), 3, 0.0)  # also those it refused
            inside.discard(id)
        elif id not in inside and policy.admit(job(id), VIEW, 0.0).admit:
            inside.add(id)
        assert len(inside) <= limit
    assert policy.admit(job(99), VIEW, 0.0).admit is (len(inside) < limit)


def serve(policy: Any, seconds: float, rounds: int, at: float = 0.0) -> None:
    """As many as may enter do, and are over after so long, each with 9 tokens."""
    for k in range(rounds):
        start = at + k * seconds
        inside = [one for i in range(100) if policy.admit(one := job(i), VIEW, start).admit]
        for one in inside:
            policy.over(one, 9, start + seconds)


def test_aimd_adds_one_a_round_in_time_and_takes_a_share_when_late() -> None:
    policy = AimdLimit(slo_s=1.0, limit=10, backoff=0.5, most=40)
    serve(policy, 0.5, rounds=1)
    assert 10.4 < policy.limit < 11  # whoever leaves last leaves few inside, and teaches nothing
    serve(policy, 0.5, rounds=200, at=1.0)
    assert policy.limit == 40
    serve(policy, 2.0, rounds=1, at=200.0)
    assert policy.limit == 20  # forty were late at once: one step
    serve(policy, 2.0, rounds=20, at=300.0)
    assert policy.limit == 1


def test_an_aimd_limit_that_nobody_reaches_stays() -> None:
    policy = AimdLimit(slo_s=1.0, limit=10)
    for k in range(50):
        policy.admit(job(k), VIEW, float(k))
        policy.over(job(k), 9, k + 0.5)
    assert policy.limit == 10


def test_the_gradient_limit_settles_where_waiting_is_its_root() -> None:
    """25 servers, 0.9 to 1.1 s a job: with more inside a job takes limit / 25 s, so at rest
    limit * 0.9 / (limit / 25) + sqrt(limit) = limit, which is 27.8."""
    policy, now, free, ends, draw = GradientLimit(limit=4), 0.0, [0.0] * 25, [], Random(1)
    for id in range(6000):
        while not policy.admit(one := job(id), VIEW, now).admit:
            now, leaving = heappop(ends)
            policy.over(leaving, 9, now)
        end = max(now, free[0]) + draw.uniform(0.9, 1.1)
        heapreplace(free, end)
        heappush(ends, (end, one))
    assert policy.limit == pytest.approx(27.8, abs=1.5)


def test_saturation_is_the_mean_of_the_worse_of_queue_and_memory() -> None:
    view = Columns([0] * 3, waiting=[5, 0, 10], kv_used_blocks=[10, 80, 0], kv_total_blocks=[100] * 3)
    policy = Saturation()
    assert policy.saturation(view, 0.0) == pytest.approx((1 + 1 + 2) / 3)
    assert not policy.admit(job(priority=1), view, 0.0).admit
    assert policy.admit(job(priority=0), view, 0.0).admit
    view.columns["up"][2] = 0
    view.columns["waiting"][0] = 4
    assert policy.saturation(view, 0.0) == pytest.approx(0.9)
    assert policy.admit(job(priority=1), view, 0.0).admit
    assert policy.saturation(Columns([0], [0]), 0.0) == 1.0


def test_tiers_are_shed_by_the_busiest_replica() -> None:
    policy = TierShed(load=5, keep=0)
    calm, busy, down = Columns([5, 5]), Columns([0, 6]), Columns([0, 6], [1, 0])
    assert [policy.admit(job(priority=1), view, 0.0).admit for view in (calm, busy, down)] == [True, False, True]
    assert policy.admit(job(priority=0), busy, 0.0).admit


def test_who_would_wait_too_long_for_its_first_token_is_rejected_at_once() -> None:
    policy = EarlyReject(ttft_s=1.0, prompt_tokens_per_s=1000.0)
    view = Columns([0, 0], queued_tokens=[900, 950])
    assert policy.admit(job(tokens=100), view, 0.0).admit
    assert "first token" in policy.admit(job(tokens=101), view, 0.0).reason
    assert policy.admit(job(tokens=101), Columns([0, 0], queued_tokens=[900, 950], matched=[0, 60]), 0.0).admit
    assert policy.admit(job(tokens=101), Columns([0], [0], queued_tokens=[5000]), 0.0).admit  # the router says it


def test_the_load_of_now_and_that_of_when_decoding_begins_differ() -> None:
    """Ten run, ten wait; the first token takes half the time a job decodes for, so five of the ten are gone by then."""
    view = Columns([20], queued_tokens=[900], running=[10], waiting=[10])
    knobs = {"ttft_s": 2.0, "prompt_tokens_per_s": 1000.0, "pass_s": 0.0, "sequence_s": 0.001}

    def admits(tpot_s: float, decode_s: float) -> bool:
        return EarlyReject(tpot_s=tpot_s, decode_s=decode_s, **knobs).admit(job(tokens=100), view, 0.0).admit

    assert admits(0.0111, decode_s=0.0) and not admits(0.0109, decode_s=0.0)  # ten and itself
    assert admits(0.0161, decode_s=2.0) and not admits(0.0159, decode_s=2.0)  # five, ten and itself


def test_a_deadline_that_the_jobs_ahead_use_up_cannot_be_met() -> None:
    policy = DeadlineDrop(memory=4)
    urgent = job(7)
    urgent.deadline = 12.0
    view = Columns([8, 8], waiting=[5, 6])
    assert policy.admit(urgent, view, 0.0).admit  # nothing is known yet
    for k in range(1, 21):
        policy.over(job(100 + k), 5, k / 2)  # two a second
        policy.over(job(200 + k), 0, k / 2)  # those that got nothing teach nothing
    assert not policy.admit(urgent, view, 7.0).admit  # 7 + 11 / 2 is over 12
    assert policy.admit(urgent, Columns([8, 8], waiting=[5, 5]), 7.0).admit
    assert policy.admit(job(8), view, 7.0).admit


def test_only_time_in_which_somebody_waited_tells_how_fast_jobs_go() -> None:
    """Two bursts of six, an idle 1000 s before each, and a job alone after it; jobs go one a second."""
    policy, urgent = DeadlineDrop(memory=8), job(7)
    for burst in (1000.0, 2000.0):
        policy.admit(job(1), Columns([6], waiting=[6]), burst)
        for k in range(1, 7):
            policy.over(job(k), 5, burst + k)
        policy.admit(job(8), Columns([0], waiting=[0]), burst + 500)
        policy.over(job(8), 5, burst + 501)
    urgent.deadline = 3010.5
    assert policy.admit(urgent, Columns([10], waiting=[10]), 3000.0).admit
    assert not policy.admit(urgent, Columns([11], waiting=[11]), 3000.0).admit


@pytest.mark.parametrize(
    "make",
    [
        lambda: TokenBucket(rate=0, capacity=1),
        lambda: TokenBucket(rate=inf, capacity=1),
        lambda: TokenBucket(rate=1, capacity=0),
        lambda: TokenBucket(rate=1, capacity=inf),
        lambda: Quota(tokens=0),
        lambda: Quota(tokens=1, window_s=0.0),
        lambda: ConcurrencyLimit(limit=0),
        lambda: AimdLimit(slo_s=0.0),
        lambda: AimdLimit(limit=8, most=4),
        lambda: GradientLimit(smoothing=0.0),
        lambda: Saturation(queue=0.0),
        lambda: Saturation(kv=2.0),
        lambda: TierShed(load=-1),
        lambda: EarlyReject(ttft_s=0.0),
        lambda: EarlyReject(decode_s=-1.0),
        lambda: DeadlineDrop(memory=0),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(make: Callable[[], Any]) -> None:
    with pytest.raises(BadInput, match=r"^[^\n]*\.$"):
        make()

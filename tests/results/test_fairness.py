"""Fairness: closed forms, and a brute-force look at every moment."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airi_sim.results.columns import Columns
from airi_sim.results.curves import Cumulative, levels
from airi_sim.results.fairness import fairness, jain, overlapping, tenants, union


def tables(jobs: list[tuple[str, float, float, float, float, int, int]]) -> tuple[Columns, Columns]:
    """(tenant, submitted, started, first, finished, tokens in, tokens out) as tables."""
    requests = [
        (i, job[0], *[""] * 3, job[1], job[3], job[4], job[5], job[6], 0, "finished", "") for i, job in enumerate(jobs)
    ]
    rows = [
        (i * 1000, i, "generate", "m", "p", "p/0", *job[1:5], job[5], job[6], 0, 0, "finished")
        for i, job in enumerate(jobs)
    ]
    return Columns("requests", requests), Columns("jobs", rows)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20))
def test_jain_lies_between_one_nth_and_one(values):
    assert 1 / len(values) - 1e-9 <= jain(np.array(values)) <= 1 + 1e-9


def test_jain_of_one_who_takes_all():
    assert jain(np.array([4.0, 0, 0, 0])) == 0.25


def test_one_served_while_the_other_waits_is_unfair():
    """Both wait from 0 to 10; a's prompts are started one after the other, b gets nothing until 10."""
    jobs = [("a", 0.0, float(t), t + 0.5, t + 0.5, 100, 1) for t in range(1, 11)] + [
        ("b", 0.0, 10.0, 10.5, 10.5, 100, 1)
    ]
    told = fairness(*tables(jobs), end_s=11.0)
    assert told["max_service_difference"] == 9 * (100 + 2)
    assert told["jain"] == pytest.approx(0.5)


def test_alternating_service_differs_by_one_turn():
    jobs = [(name, 0.0, t, t, t, 100, 1) for t, name in zip(map(float, range(1, 9)), "abababab", strict=True)]
    told = fairness(*tables(jobs), end_s=9.0)
    assert told["max_service_difference"] == 102
    assert told["jain"] > 0.95


def test_weights_make_unequal_shares_fair():
    jobs = [(name, 0.0, t, t, t, 100, 1) for t, name in zip(map(float, range(1, 13)), "aabaabaabaab", strict=True)]
    weighted = fairness(*tables(jobs), end_s=13.0, weights={"a": 2.0, "b": 1.0})
    assert weighted["jain"] > fairness(*tables(jobs), end_s=13.0)["jain"]


def test_tenants_that_never_compete_are_treated_fairly():
    told = fairness(*tables([("a", 0.0, 1.0, 1.0, 2.0, 10, 5), ("b", 3.0, 4.0, 4.0, 5.0, 99, 5)]), end_s=5.0)
    assert told == {"jain": 1.0, "max_service_difference": 0.0}


def test_nobody_is_neither_fair_nor_unfair():
    assert fairness(*tables([]), end_s=0.0)["jain"] is None


lives = st.tuples(
    st.sampled_from("abc"), st.integers(0, 20), *[st.integers(0, 6)] * 3, st.integers(1, 9), st.integers(1, 9)
)


@given(st.lists(lives, min_size=1, max_size=12))
@settings(deadline=None)
def test_largest_difference_is_that_of_looking_everywhere(drawn):
    jobs = [(n, float(s), float(s + w), float(s + w + p), float(s + w + p + d), i, o) for n, s, w, p, d, i, o in drawn]
    requests, rows = tables(jobs)
    told = fairness(requests, rows, end_s=99.0)["max_service_difference"]
    assert told == pytest.approx(brute_difference(jobs), abs=1e-6)


def brute_difference(jobs: list[tuple]) -> float:
    """Walk over unit intervals, in which nothing begins or ends; service at their ends, from inside."""

    def service(name: str, t: float) -> float:
        total = 0.0
        for tenant, _, started, first, finished, tokens_in, tokens_out in jobs:
            if tenant == name:
                done = (t > first) if finished == first else min(max((t - first) / (finished - first), 0), 1)
                total += tokens_in * (t > started) + 2 * tokens_out * done
        return total

    def waits(name: str, t: float) -> bool:
        return any(job[0] == name and job[1] <= t < job[2] for job in jobs)

    names, worst, tiny = sorted({job[0] for job in jobs}), 0.0, 1e-9
    for u in names:
        for v in names:
            seen: list[float] = []
            for t in range(100):
                if waits(u, t) and waits(v, t):
                    seen = seen or [service(u, t) - service(v, t)]
                    seen += [service(u, x) - service(v, x) for x in (t + tiny, t + 1)]
                    worst = max(worst, max(seen) - min(seen))
                else:
                    seen = []
    return worst


intervals = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=12)


@given(intervals, intervals)
def test_overlaps_of_intervals_are_those_of_their_points(a, b):
    def inside(pairs: list[tuple[int, int]], t: float) -> bool:
        return any(low <= t < high for low, high in pairs)

    merged = [union(*(np.array([pair[i] for pair in side], dtype=float) for i in (0, 1))) for side in (a, b)]
    both = list(zip(*overlapping(merged), strict=True))
    for t in np.arange(0, 31, 0.5):
        assert inside(both, t) == (inside(a, t) and inside(b, t))
    assert all(high < low for (_, high), (low, _) in pairwise(zip(*merged[0], strict=True)))


def test_tenants_come_in_order_of_service():
    told = tenants(*tables([("a", 0.0, 1.0, 1.0, 2.0, 10, 1), ("b", 0.0, 1.0, 1.0, 2.0, 99, 1)]), end_s=2.0)
    assert [(tenant.name, tenant.service.total) for tenant in told] == [("b", 101.0), ("a", 12.0)]


def test_cumulative_adds_steps_and_ramps():
    curve = Cumulative.of(
        (np.array([1.0]), np.array([10.0])), (np.array([0.0, 1.0]), np.array([2.0, 3.0]), np.array([4.0, 8.0]))
    )
    np.testing.assert_allclose(curve.at(np.array([0.0, 1.0, 2.0, 9.0])), [0, 12, 18, 22])
    assert curve.at(np.array([1.0]), before=True)[0] == 2.0


def test_levels_sum_the_last_report_of_each_server():
    times, sums = levels(np.array([0, 1, 0]), np.array([1.0, 2.0, 3.0]), np.array([5.0, 7.0, 0.0]))
    assert (times.tolist(), sums.tolist()) == ([1.0, 2.0, 3.0], [5.0, 12.0, 7.0])

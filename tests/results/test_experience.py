"""Fluidity, QoE, slowdown, isolation, lags: worked examples, closed forms and laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airi_sim.core.errors import BadInput
from airi_sim.results.experience import effective_capacity, fluidity, qoe, slowest_gaps
from airi_sim.results.fairness import lags
from airi_sim.results.slo import Goodput, highest_rate
from tests.results.test_fairness import lives, tables
from tests.results.test_metrics import tiny


def stalled(at: int) -> np.ndarray:
    """Twenty tokens 50 ms apart, the first when it is due (.5 s), with 500 ms before token `at` (from 1)."""
    gaps = np.full(20, 0.05)
    gaps[0], gaps[at - 1] = 0.5, 0.5
    return np.cumsum(gaps)


@pytest.mark.parametrize(("at", "index"), [(3, 19 / 23), (18, 1.0)])
def test_fluidity_forgives_a_stall_after_tokens_came_early(at, index):
    """The worked example: four deadlines go by during the early stall, none during the late one."""
    assert fluidity(stalled(at), first_s=0.5, token_s=0.1) == pytest.approx(index)


def test_fluidity_counts_from_a_late_token_anew():
    assert fluidity(np.array([0.5, 0.9, 1.0, 1.1]), 0.5, 0.1) == 0.5
    assert fluidity(np.array([0.5, 0.6, 0.7]), 0.5, 0.1) == 1.0, "a token at its deadline is in time"
    assert fluidity(np.empty(0), 0.5, 0.1) == 0.0


streams = st.lists(st.floats(0.001, 3.0), min_size=1, max_size=40).map(np.cumsum)


@given(streams, st.floats(0.1, 2.0), st.floats(0.02, 0.5))
def test_fluidity_is_a_share_and_one_only_if_nothing_is_late(times, first_s, token_s):
    index = fluidity(times, first_s, token_s)
    assert 0 <= index <= 1
    assert (index == 1) == bool((times <= first_s + token_s * np.arange(len(times)) + 1e-8 * token_s).all())


def brute_qoe(times, first_s, speed, step=2e-4):
    """Walk over small steps of time: both curves rise at most at `speed`, the read one no further than what came."""
    t, read, areas = 0.0, 0.0, [0.0, 0.0]
    while read < len(times) - 1e-9:
        came = int((times <= t).sum())
        expected = min(max(t - first_s, 0.0) * speed, len(times))
        areas[0] += expected * step
        areas[1] += read * step
        read = min(read + speed * step, came)
        t += step
    return min(1.0, areas[1] / areas[0]) if areas[0] else 1.0


@pytest.mark.parametrize("seed", range(6))
def test_qoe_is_the_ratio_of_the_areas(seed):
    draw = np.random.default_rng(seed)
    times = np.cumsum(draw.exponential(0.3, 12))
    assert qoe(times, 0.5, 4.0) == pytest.approx(brute_qoe(times, 0.5, 4.0), abs=0.003)


def test_qoe_of_a_token_that_is_late():
    """A late first token, d after it was expected: the reader's ramp (1 / 2v) over that and d."""
    assert qoe(np.array([1.5]), 1.0, 4.0) == pytest.approx(1 / (1 + 2 * 0.5 * 4))
    assert qoe(np.empty(0), 1.0, 4.0) == 0.0


@given(streams, st.floats(0.05, 2.0), st.floats(0.5, 20.0), st.floats(0.0, 5.0))
def test_qoe_is_a_share_and_never_grows_with_delay(times, first_s, speed, delay):
    on_time, late = qoe(times, first_s, speed), qoe(times + delay, first_s, speed)
    assert 0 <= late <= on_time + 1e-9 <= 1 + 2e-9
    if (times <= first_s + np.arange(len(times)) / speed).all():
        assert on_time == pytest.approx(1.0), "tokens that come early cannot be read early, nor are they missed"


def test_slowest_gaps_are_a_tenth_of_them():
    assert slowest_gaps(np.cumsum(np.arange(1.0, 22.0))) == pytest.approx((20 + 21) / 2)
    assert slowest_gaps(np.cumsum(np.arange(1.0, 17.0))) == pytest.approx((15 + 16) / 2), "a tenth of 15, rounded up"
    assert slowest_gaps(np.array([0.0, 1.0, 3.0])) == 2.0
    assert np.isnan(slowest_gaps(np.array([1.0])))


@pytest.fixture
def run(make_run):
    return make_run(toy=tiny() | {"decisions": []})


def test_experience_has_a_row_an_offered_request(run):
    told = run.experience(first_s=1.0, token_s=1.0, speed=1.0)
    assert told["fluidity"].tolist() == pytest.approx([2 / 3, 1.0, 0.0])
    assert told["qoe"].tolist()[1:] == [1.0, 0.0]
    assert told["normalised_s"].tolist()[:2] == pytest.approx([4 / 3, 1.0])
    assert told["tbt_s"].tolist()[0] == 2.0
    assert [effective_capacity(told, tbt_s=limit) for limit in (1.0, 2.0)] == pytest.approx([1 / 3, 2 / 3])
    with pytest.raises(BadInput, match="speed"):
        run.experience(speed=0.0)


def test_who_gave_up_after_the_first_token_is_not_served(make_run):
    rows = tiny() | {"decisions": []}
    cut = [(*row[:11], "cancelled", "") if row[0] == 1 else row for row in rows["requests"]]
    told = make_run(toy=rows | {"requests": cut}).experience()
    assert told["ttft_s"].tolist()[1] == 1.0
    assert (told["fluidity"].tolist()[1], told["qoe"].tolist()[1]) == (0.0, 0.0)
    assert effective_capacity(told, tbt_s=2.0) == pytest.approx(1 / 3)


def test_a_longer_prompt_may_take_longer(run):
    told = run.experience(first_s=0.1, first_token_s=0.01, token_s=1.5, speed=1.0)
    assert told["fluidity"].tolist() == [1.0, 0.0, 0.0]


def test_answers_are_the_last_calls_of_finished_requests(run):
    assert {request: times.tolist() for request, times in run.answers().items()} == {0: [1.0, 2.0, 4.0], 1: [6.0]}


def test_the_answer_of_a_chain_is_its_last_call(make_run):
    """The second call of request 1 is over at 8 s, with one token at 8 s."""
    rows = tiny() | {"decisions": []}
    jobs = [*rows["jobs"], (1001, 1, "generate", "m", "p", "p/0", 6.0, 6.0, 8.0, 8.0, 50, 1, 0, 0, "finished")]
    jobs += [(1002, 1, "embed", "m", "p", "p/0", 8.0, 8.0, 9.0, 9.0, 50, 0, 0, 0, "finished")]
    spans = [*rows["spans"], ("p/0", 0, 1001, 2, 2, 8.0, True)]
    for order in (1, -1):
        run = make_run(f"run{order}", toy=rows | {"jobs": jobs[::order], "spans": spans[::order]})
        assert run.answers()[1].tolist() == [8.0]


def test_slowdown_is_over_the_same_request_alone(make_run):
    rows = tiny() | {"decisions": []}
    alone = [(*row[:7], row[7] and row[5] + (row[7] - row[5]) / 2, *row[8:]) for row in rows["requests"]]
    run, other = make_run("a", toy=rows), make_run("b", toy=rows | {"requests": alone})
    told = run.slowdown(other, classes=2)
    assert told["mean"].tolist() == told["p99"].tolist() == [2.0, 2.0]
    assert told["tokens_to"].tolist() == [51, 103]
    assert told["requests"].sum() == 2
    with pytest.raises(BadInput, match="not the same requests"):
        run.slowdown(make_run("c", toy={name: [] for name in rows}))


def test_a_run_is_isolated_from_itself(make_run):
    run, slow = make_run("a"), make_run("b", slow=2.0)
    assert run.isolation(run).index.tolist() == ["ann", "bob", "cy"]
    assert (run.isolation(run) == 1.0).all(axis=None)
    assert (slow.isolation(run)[["e2e_mean", "ttft_mean"]] > 1.2).all(axis=None)
    with pytest.raises(BadInput, match="no tenant in common"):
        run.isolation(make_run("c", toy=tiny() | {"decisions": []}))


def test_who_is_served_less_but_wants_no_more_is_not_behind():
    """a gets two requests' worth (2 * 102) in the first window, b one; b waits for another, c wanted only half."""
    jobs = [("a", 0.0, 1.0, 1.0, 1.0, 100, 1), ("a", 0.0, 2.0, 2.0, 2.0, 100, 1), ("b", 0.0, 3.0, 3.0, 3.0, 100, 1),
            ("b", 0.0, 12.0, 12.0, 12.0, 100, 1), ("c", 0.0, 4.0, 4.0, 4.0, 49, 1)]  # fmt: skip
    ends, behind = lags(*tables(jobs), end_s=15.0, window_s=10.0)
    assert ends.tolist() == [10.0, 15.0]
    assert {name: values.tolist() for name, values in behind.items()} == {"a": [0, 0], "b": [102, 0], "c": [0, 0]}
    weighted = lags(*tables(jobs), end_s=15.0, window_s=10.0, weights={"a": 2.0})[1]
    assert weighted["b"][0] == 0, "a's share is twice b's"
    heavier = lags(*tables(jobs), end_s=15.0, window_s=10.0, weights={"b": 4.0})[1]
    assert heavier["b"][0] == 102 / 4, "what b still waits for, over its weight"


@given(st.lists(lives, min_size=1, max_size=12), st.floats(1.0, 40.0))
def test_nobody_is_behind_by_more_than_they_wait_for(drawn, window_s):
    jobs = [(n, float(s), float(s + w), float(s + w + p), float(s + w + p + d), i, o) for n, s, w, p, d, i, o in drawn]
    ends, behind = lags(*tables(jobs), end_s=50.0, window_s=window_s)
    assert ends[-1] == 50.0
    for name, values in behind.items():
        assert (values >= -1e-9).all() and (values <= sum(j[5] + 2 * j[6] for j in jobs if j[0] == name) + 1e-9).all()
        assert values[-1] == pytest.approx(0, abs=1e-6), "all are served at 50 s"


def test_lags_of_a_run_are_a_frame(make_run):
    told = make_run().lags(window_s=0.5)
    assert told.columns.tolist() == ["ann", "bob", "cy"]
    with pytest.raises(BadInput, match="longer than 0"):
        make_run("b").lags(window_s=0.0)


def test_goodput_is_where_attainment_falls_below_the_share():
    assert highest_rate([4, 1, 2], [0.7, 1.0, 1.0]) == Goodput(pytest.approx(2 + 2 / 3), True)
    assert highest_rate([1, 2, 3], [0.95, 0.8, 0.99]).rate == pytest.approx(1 + 1 / 3), (
        "no luck behind a failure counts"
    )
    assert highest_rate([1, 2], [0.99, 0.9]) == Goodput(2.0, False)
    assert highest_rate([1, 2], [0.89, 0.2]) is None
    assert highest_rate([1, 2], [0.95, float("nan")]) == Goodput(1.0, True)
    with pytest.raises(BadInput, match="one attainment a load"):
        highest_rate([1, 2], [0.5])

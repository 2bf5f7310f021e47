"""Orders that move with time, against brute force: relative slack, and the experience of users."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airi_sim.core.errors import BadInput
from airi_sim.policies.queues import Atlas, Edf, Lars, Las, Mlfq, Plas, Qoe, RandomOrder, SkipJoinMlfq, Slack
from airi_sim.policies.queues.experience import shortfall
from tests.policies.fakes import job

WAITING = st.lists(st.tuples(st.integers(1, 400), st.floats(0, 20), st.booleans()), min_size=1, max_size=10)
LATER = st.lists(st.floats(0, 60), max_size=20)


def filled(queue: Any, waiting: Any, now: float) -> Any:
    """The queue with jobs of (tokens, arrived, has a deadline) that came before `now`."""
    for id, (tokens, arrived, due) in enumerate(waiting):
        one = job(id, tokens, arrived=min(arrived, now))
        one.deadline = one.arrived + tokens / 20 if due else inf
        queue.push(one, one.arrived)
    return queue


@given(waiting=WAITING, now=st.floats(0, 30), later=LATER)
def test_lars_serves_the_least_relative_slack_and_knows_how_long(waiting: Any, now: float, later: list[float]) -> None:
    queue = filled(Lars(prompt_s=0.05, slack_s=15.0), waiting, now)
    jobs = [one for _, _, one in queue._jobs.values()]
    head, until = queue.peek(now), queue.stable(now, {}).until
    for time in [now, *sorted(t for t in later if t >= now)]:
        if time <= until:
            assert queue.peek(time) is head
        slacks = [queue.slack(one, time) for one in jobs]
        assert queue.slack(queue.peek(time), time) <= min(slacks) + 1e-6 * (1 + abs(min(slacks)))


def test_lars_does_not_let_a_long_prompt_starve_behind_short_ones() -> None:
    """Short prompts always have less time to their deadlines; in relation to its length the long one has less in the
    end."""
    queue, long = Lars(prompt_s=0.01), job(0, 1000)
    long.deadline = 20.0
    queue.push(long, 0.0)
    first = None
    for second in range(1, 20):
        short = job(second, 10, arrived=float(second))
        short.deadline = second + 0.145
        queue.push(short, float(second))
        if queue.pop(float(second)) is long:
            first = second
            break
    assert first == 6  # the first at which (20 - t - 10) / 10 < (0.145 - 0.1) / 0.1


@given(late=st.floats(-20, 20), rate=st.floats(-30, 30), window=st.floats(0.01, 3))
def test_shortfall_is_the_area_of_what_is_missing(late: float, rate: float, window: float) -> None:
    times = np.linspace(0, window, 20_001)
    missing = np.maximum(0, late + rate * times)
    assert shortfall(late, rate, window) == pytest.approx(np.trapezoid(missing, times), abs=1e-4)


@given(waiting=WAITING, now=st.floats(0, 30), later=LATER)
def test_qoe_serves_the_most_valuable_and_stands_still_within_a_quantum(
    waiting: Any, now: float, later: list[float]
) -> None:
    queue = filled(Qoe(ttft_s=2.0, quantum_s=1.5), waiting, now)
    head, until = queue.peek(now), queue.stable(now, {}).until
    assert now <= until <= now + 1.5 + 1e-9
    for time in [now, *sorted(t for t in later if t >= now)]:
        if time <= until:
            assert queue.peek(time) is head
        best = queue.peek(time)
        assert queue.value(best, 0) == max(queue.value(one, 0) for one in queue._jobs.values())


@given(first=st.floats(0, 20), gap=st.floats(0.001, 20), now=st.floats(60, 300))
def test_among_those_whose_users_wait_all_along_the_earlier_goes_first(first: float, gap: float, now: float) -> None:
    """Regression: they are worth the same, and the rounding of large areas decided between them."""
    queue = Qoe(ttft_s=1.0, speed=4.8, pace=20.0, quantum_s=0.1)
    early, late = job(1, 268, arrived=first), job(2, 268, arrived=first + gap)
    queue.push(late, now)
    queue.push(early, now)
    assert queue.peek(now) is early


def test_who_has_tokens_in_reserve_can_wait() -> None:
    queue = Qoe(ttft_s=1.0, speed=5.0, pace=20.0, quantum_s=1.0)
    rich, poor = job(1, 100, arrived=0.0), job(2, 100, arrived=1.0)
    rich.tokens += 60
    queue.push(rich, 4.5)
    queue.push(poor, 4.5)
    assert queue.value(rich, 60) == 0 < queue.value(poor, 0)
    assert queue.peek(4.5) is poor


def test_random_order_is_the_same_for_the_same_seed_and_draws_when_a_job_comes() -> None:
    def order(seed: int, peeks: int) -> list[int]:
        queue = RandomOrder(seed)
        for id in range(20):
            queue.push(job(id), 0.0)
            for _ in range(peeks):
                queue.peek(0.0)
        return [queue.pop(0.0).request for _ in range(20)]

    assert order(1, 0) == order(1, 5) != order(2, 0)
    assert sorted(order(1, 0)) == list(range(20)) != order(1, 0)


def test_a_program_that_had_little_goes_before_one_that_had_much() -> None:
    queue = Plas(quantum=100.0, growth=2.0, levels=4, patience=50.0)
    calls = {request: [job(request, 30, arrived=float(i)) for i in range(3)] for request in (1, 2)}
    for tokens_out in (40, 400):
        queue.over(calls[1][0], tokens_out, 1.0)  # 110, then 940 weighted tokens
    queue.over(calls[2][0], 5, 1.0)
    queue.push(calls[1][1], 2.0)
    queue.push(calls[2][1], 3.0)
    assert queue.peek(3.0) is calls[2][1]
    assert queue.stable(3.0, {}).until == 52.0
    assert queue.peek(52.01) is calls[1][1]


def test_plas_forgets_the_programs_longest_unseen() -> None:
    queue = Plas(by="session", quantum=10.0, capacity=2)
    for session in ("a", "b", "c"):
        call = job(1, 30)
        call.session = session
        queue.over(call, 50, 0.0)
    levels = []
    for session in ("a", "b", "c"):
        call = job(2, 30)
        call.session = session
        levels.append(queue.key(call, 0.0)[0])
    assert levels[0] == 0 < levels[1] == levels[2]


def test_atlas_counts_the_longest_path_of_calls_that_led_to_one() -> None:
    """a and b side by side, then c after both; d of another program after a short call."""

    def call(request: int, index: int, tokens: int, inputs: tuple[int, ...] = ()) -> Any:
        one = job(request, tokens)
        one.id, one.inputs = request * 1000 + index, inputs
        return one

    queue = Atlas(w_in=1.0, w_out=1.0)
    a, b, d = call(1, 0, 10), call(1, 1, 10), call(2, 0, 30)
    for one in (a, b, d):
        queue.push(one, 0.0)
        queue.remove(one, 0.0)
    for one in (a, b, d):
        queue.push(one, 0.0)
        queue.pop(0.0)
    queue.over(a, 40, 1.0)
    queue.over(b, 90, 1.5)
    queue.over(d, 5, 2.0)
    c, e, f = call(1, 2, 10, (a.id, b.id)), call(2, 1, 10), call(1, 3, 10, (a.id,))
    assert [queue.path(one) for one in (c, e, f)] == [100.0, 35.0, 50.0]
    for one in (c, e, f):
        queue.push(one, 3.0)
    assert [queue.pop(3.0) for _ in range(3)] == [e, f, c]


def test_calls_side_by_side_do_not_count_for_each_other() -> None:
    queue, first, second = Atlas(), job(1, 10), job(1, 10)
    second.id += 1
    for one in (first, second):
        queue.push(one, 0.0)
        queue.pop(0.0)
    queue.over(first, 1000, 1.0)
    queue.requeue(second, 2.0)
    assert queue.waiting.top()[0][0] == 0.0


@pytest.mark.parametrize(
    "make",
    [
        lambda: Las(quantum=0),
        lambda: Mlfq(levels=0),
        lambda: Mlfq(patience=0),
        lambda: SkipJoinMlfq(prompt_rate=0),
        lambda: SkipJoinMlfq(quantum=0),
        lambda: Lars(prompt_s=0),
        lambda: Slack(prompt_s=-1),
        lambda: Qoe(speed=0),
        lambda: Plas(growth=1.0),
        lambda: Plas(quantum=0),
        lambda: Atlas(capacity=0),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(make: Callable[[], Any]) -> None:
    with pytest.raises(BadInput, match=r"^[^\n]*\.$"):
        make()


def test_edf_puts_those_without_a_deadline_last_by_arrival() -> None:
    queue = Edf()
    for id, due in ((1, inf), (2, 9.0), (3, inf), (4, 5.0)):
        one = job(id, arrived=float(id))
        one.deadline = due
        queue.push(one, float(id))
    assert [queue.pop(9.0).request for _ in range(4)] == [4, 2, 1, 3]

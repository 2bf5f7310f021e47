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
from airi_sim.policies import queues
from airi_sim.policies.queues import Fcfs, PriorityAging, Sjf
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


class TenEach:
    """A predictor."""

    def predict(self, waiting: Job) -> float:
        return 10.0 * (1 + waiting.priority)

    def learn(self, waiting: Job, tokens_out: int) -> None:
        """Nothing."""


def left(waiting: Job) -> float:
    return max(1.0, 10.0 * (1 + waiting.priority) - (waiting.tokens - waiting.prompt))


KEYED: dict[str, tuple[Callable[[], Any], Callable[[Job, float], Any]]] = {
    "sjf": (Sjf, lambda waiting, _now: (waiting.tokens, waiting.id)),
    "priority_aging": (lambda: PriorityAging(PATIENCE), aging_key),
    "lcfs": (queues.Lcfs, lambda waiting, _now: (-waiting.arrived, waiting.id)),
    "predicted_sjf": (
        lambda: queues.PredictedSjf(TenEach(), w_in=2.0),
        lambda waiting, _now: (2 * waiting.tokens + left(waiting), waiting.id),
    ),
    "srpt": (lambda: queues.Srpt(TenEach()), lambda waiting, _now: (left(waiting), waiting.id)),
    "las": (queues.Las, lambda waiting, _now: (waiting.tokens - waiting.prompt, waiting.arrived, waiting.id)),
    "edf": (queues.Edf, lambda waiting, _now: (waiting.deadline, waiting.arrived, waiting.id)),
    "slack": (
        lambda: queues.Slack(prompt_s=0.5, token_s=0.25, predictor=TenEach()),
        lambda waiting, now: (
            waiting.deadline - now - 0.5 * waiting.tokens - 0.25 * left(waiting), waiting.arrived, waiting.id,
        ),
    ),
}  # fmt: skip

OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["push", "push", "pop", "requeue", "remove"]), st.integers(0, 5), st.integers(0, 4)),
    max_size=60,
)


@pytest.mark.parametrize("name", KEYED)
@given(operations=OPERATIONS)
def test_keyed_queues_serve_as_a_list_searched_anew(name: str, operations: Any) -> None:
    make, key = KEYED[name]
    queue, reference = make(), Sorted(key)
    running: list[Job] = []
    for step, (operation, size, pause) in enumerate(operations):
        now = step + pause / 4
        if operation == "push":
            waiting = job(step, tokens=1 + size, priority=pause, arrived=now)
            waiting.deadline = now + 2.0 * size if size < 5 else inf
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


@pytest.mark.parametrize(
    "make",
    [
        lambda: PriorityAging(0),
        lambda: PriorityAging(-1.0),
        lambda: PriorityAging(float("nan")),
        lambda: Sjf(predictor="perfect"),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(make: Callable[[], Any]) -> None:
    with pytest.raises(BadInput, match=r"^[^\n]*\.$"):
        make()


MOVING = {"PriorityAging", "Mlfq", "SkipJoinMlfq", "Lars", "Qoe", "Plas", "Rpm", "Vtc", "Lcf", "Dlpm"}
BOOKED = {"Vtc", "Lcf", "Dlpm"}
CONTESTS = {"Srpt", "Las", "Mlfq", "SkipJoinMlfq", "Edf", "Qoe"}


@pytest.mark.parametrize("name", queues.__all__)
def test_what_queues_promise(name: str) -> None:
    """An empty queue answers, and says of itself what its order does."""
    cls = getattr(queues, name)
    queue = cls(seed=0) if name == "RandomOrder" else cls()
    assert (len(queue), queue.peek(0.0)) == (0, None)
    assert queue.timeless == (name not in MOVING)
    assert callable(getattr(queue, "stable", None)) or queue.timeless
    assert queue.account == ("tenant" if name in BOOKED else None)
    assert hasattr(queue, "contest") == (name in CONTESTS)
    assert hasattr(queue, "overtakes") == (name == "Lars")

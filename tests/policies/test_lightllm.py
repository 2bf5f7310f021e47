"""The router of LightLLM: who is let in, when, and for how long the answer stays the same."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from airi_sim.core.types import FOREVER
from airi_sim.policies.lightllm import LightLlm


@dataclass
class Draft:
    """A server with equal blocks of one token: `jobs` are (prompt, budget, out)."""

    jobs: list[tuple[int, int, int]]
    total: int
    passes: int = 0
    seats: int = 99
    budget: int = 10_000
    block: int = 1
    preempted: bool = False
    partial: tuple = ()
    decoded: bool = False
    closed: bool = False
    admitted: list = field(default_factory=list)

    @property
    def running(self):
        return {i: job_of(*job) for i, job in enumerate(self.jobs)}

    @property
    def decoding(self):
        return len(self.jobs)

    @property
    def sliced(self):
        return bool(self.admitted)

    def attained(self, job):
        return job.out

    def decode(self, now):
        self.decoded = True

    def admit(self, job):
        if job.tokens > self.budget:
            return False
        self.budget -= job.tokens
        self.admitted.append(job)
        return True

    def later(self, passes):
        return Draft([(p, b, out + passes) for p, b, out in self.jobs], self.total, self.passes + passes)


class Queue:
    def __init__(self, *jobs):
        self.jobs = [job_of(*job) for job in jobs]

    def peek(self, now):
        return self.jobs[0] if self.jobs else None

    def pop(self, now):
        return self.jobs.pop(0)


def job_of(prompt, budget, out=0):
    return SimpleNamespace(prompt=prompt, tokens=prompt + out, budget=budget, out=out)


def artifact(running, new, capacity):
    """How the published router decides, in its own terms: (tokens so far, tokens to come) of everybody, longest
    output first, cumulated."""
    rows = [(p + out, b - out - 1) for p, b, out in running] + [(p + 1, b - 1) for p, b in new]
    rows.sort(key=lambda row: -row[1])
    left, held = np.array([row[1] for row in rows]), np.cumsum([row[0] for row in rows])
    return bool((left * np.arange(1, len(rows) + 1) + held).max() < capacity)


JOB = st.tuples(st.integers(1, 60), st.integers(2, 60))
RUNNING = st.lists(JOB.flatmap(lambda job: st.integers(1, job[1] - 1).map(lambda out: (*job, out))), min_size=1,
                   max_size=8)  # fmt: skip


@given(running=RUNNING, waiting=st.lists(JOB, max_size=5), capacity=st.integers(20, 900))
def test_it_lets_in_whom_the_published_router_lets_in(running, waiting, capacity):
    draft = Draft(running, capacity)
    LightLlm().form(draft, Queue(*waiting), 0.0)
    expected = 0
    while expected < len(waiting) and artifact(running, waiting[: expected + 1], capacity):
        expected += 1
    assert len(draft.admitted) == expected
    assert draft.decoded == (not expected)


@given(running=RUNNING, head=JOB, capacity=st.integers(20, 900))
def test_nobody_is_let_in_within_the_horizon(running, head, capacity):
    policy, draft = LightLlm(), Draft(running, capacity)
    policy.form(draft, Queue(head), 0.0)
    if not draft.admitted:
        passes = policy.stable(draft, Queue(head), 0.0).passes
        first_stop = min(b - out for _, b, out in running)
        for after in range(1, min(passes, first_stop)):
            assert not artifact(draft.later(after).jobs, [head], capacity)


def test_the_horizon_is_exact_for_a_newcomer_who_outlasts_all():
    running, head, capacity = [(50, 100, 60), (50, 100, 40)], (50, 100), 260
    passes = LightLlm().stable(Draft(running, capacity), Queue(head), 0.0).passes
    assert not artifact(Draft(running, capacity).later(passes - 1).jobs, [head], capacity)
    assert artifact(Draft(running, capacity).later(passes).jobs, [head], capacity)


def test_prompts_wait_for_ten_passes_of_decodes():
    policy, first = LightLlm(), Draft([], 1000)
    policy.form(first, Queue((10, 20)), 0.0)
    assert len(first.admitted) == 1
    for passes in range(1, 11):
        draft = Draft([(10, 20, passes)], 1000, passes)
        policy.form(draft, Queue((10, 20)), 0.0)
        assert draft.decoded and draft.closed and policy.stable(draft, Queue((10, 20)), 0.0).passes == 11 - passes
    draft = Draft([(10, 20, 11)], 1000, 11)
    policy.form(draft, Queue((10, 20)), 0.0)
    assert len(draft.admitted) == 1 and not draft.decoded


def test_a_job_without_a_budget_runs_alone():
    draft = Draft([], 1000)
    LightLlm().form(draft, Queue((10, FOREVER), (10, 5)), 0.0)
    assert len(draft.admitted) == 1

"""The generate executor: the same tokens however the runtime cuts, mixes, preempts or shares; measured by its clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from airi_sim.core.types import Job, Plan, Row
from real_backend import weights
from real_backend.backend import TorchBackend
from real_backend.executor import TorchExecutor
from tests.real_backend.reference import logits as reference_logits
from tests.real_backend.world import LLAMA, POOL, SPECS, Fixed, Mini, Ticks, job

pytestmark = pytest.mark.real
Make = Callable[..., TorchBackend]
LENGTHS = {0: 7, 1: 1, 2: 12, 3: 4, 4: 9}
PROMPTS = (9, 4, 1, 23, 14)


def jobs() -> list[Job]:
    return [job(index, tokens) for index, tokens in enumerate(PROMPTS)]


def world(make: Make, **options: object) -> tuple[TorchBackend, TorchExecutor]:
    backend = make(**options)
    return backend, backend.executor(POOL, 0, Fixed(LENGTHS))


def outputs(backend: TorchBackend) -> list[list[int]]:
    """Generated tokens of the jobs of `jobs()`, from what they left behind."""
    return [list(backend.results.get(job.id).ids) for job in jobs()]  # type: ignore[union-attr]


def by_the_textbook() -> list[list[int]]:
    """Greedy decoding with the dense reference, one job after the other."""
    found = []
    for each in jobs():
        text = Fixed().prompt(each, LLAMA.vocab)
        for _ in range(LENGTHS[each.request]):
            text.append(int(reference_logits(LLAMA, weights.draw(LLAMA, seed=0), text)[-1].argmax()))
        found.append(text[each.prompt :])
    return found


class Alike(Fixed):
    """Every prompt is the same."""

    def prompt(self, job: Job, vocabulary: int) -> list[int]:
        return np.random.default_rng(0).integers(vocabulary, size=job.prompt).tolist()


@pytest.fixture(scope="module")
def expected() -> list[list[int]]:
    return by_the_textbook()


def test_one_job_at_a_time(make_backend: Make, expected: list[list[int]]) -> None:
    backend, executor = world(make_backend)
    mini = Mini(executor)
    for each in jobs():
        mini.admit([each])
        mini.drain()
    assert outputs(backend) == expected


@pytest.mark.parametrize("budget", [1 << 30, 17, 6])
def test_any_budget_gives_the_same_tokens(make_backend: Make, expected: list[list[int]], budget: int) -> None:
    """Chunks of every size mixed with decodes in one pass."""
    backend, executor = world(make_backend)
    mini = Mini(executor)
    mini.admit(jobs())
    mini.drain(budget)
    assert outputs(backend) == expected


def test_a_preempted_job_goes_on_where_it_stopped(make_backend: Make, expected: list[list[int]]) -> None:
    backend, executor = world(make_backend)
    mini, batch = Mini(executor), jobs()
    mini.admit(batch)
    for victim in (batch[2], batch[4], batch[2]):
        mini.step(20)
        mini.step(20)
        mini.preempt(victim)
    mini.drain(10)
    assert outputs(backend) == expected


def test_a_prefix_hit_gives_the_tokens_of_the_whole_prompt(make_backend: Make) -> None:
    """The second job starts at position 8 on blocks that the first one filled, even within the same pass."""
    first, second = job(3, 23), job(5, 23)
    backend = make_backend()
    executor = backend.executor(POOL, 0, Alike(LENGTHS))
    mini = Mini(executor)
    mini.admit([first, second])
    table = [20, 30, 21, 31, 22, 32, 23, 33]
    mini.live[first.id].table = table
    mini.live[second.id].table = [*table[:2], 40, 41, 42, 43, 44, 45]
    mini.live[second.id].done = 8
    mini.run([Row(first, 0, 23, table), Row(second, 8, 15, mini.live[second.id].table)])
    mini.drain()
    one, two = (backend.results.get(each.id).ids for each in (first, second))  # type: ignore[union-attr]
    assert list(one) == list(two)[: len(one)]


def test_another_replica_goes_on_with_a_job_of_a_dead_one(make_backend: Make, expected: list[list[int]]) -> None:
    """A plan that is never finished leaves no token behind."""
    backend, executor = world(make_backend)
    doomed, heir = Mini(executor), Mini(backend.executor(POOL, 1, Fixed(LENGTHS)))
    batch = jobs()
    doomed.admit(batch)
    doomed.step()
    doomed.step()
    plan = Plan(0, 0.0, [], [])
    plan.rows = [Row(live.job, live.done, live.left, [*live.table, 60]) for live in doomed.live.values()]
    executor.start(plan, 0.0)
    plan.live = False
    for live in doomed.live.values():
        live.job.tokens = live.job.prompt + live.out
        live.done, live.table = 0, []
    heir.live = doomed.live
    heir.drain(16)
    assert outputs(backend) == expected


def test_a_job_sent_back_to_its_prompt_starts_afresh(make_backend: Make, expected: list[list[int]]) -> None:
    backend, executor = world(make_backend)
    mini, batch = Mini(executor), jobs()
    mini.admit(batch)
    for _ in range(3):
        mini.step()
    live = mini.live[batch[2].id]
    mini.preempt(batch[2])
    live.out, batch[2].tokens = 0, batch[2].prompt
    mini.drain()
    assert outputs(backend) == expected


def test_stopped_jobs_come_in_order_of_rows(make_backend: Make) -> None:
    _, executor = world(make_backend)
    mini = Mini(executor)
    batch = [job(index, tokens) for index, tokens in ((12, 6), (10, 1), (11, 3))]
    executor.work.script.lengths = {10: 1, 11: 1, 12: 1}  # type: ignore[attr-defined]
    mini.admit(batch)
    assert mini.step().stopped == batch


def test_a_budget_stops_a_job_before_its_script_does(make_backend: Make) -> None:
    backend, executor = world(make_backend)
    mini, short = Mini(executor), job(2, 5, budget=3)
    mini.admit([short])
    mini.drain()
    assert len(backend.results.get(short.id).ids) == 3  # type: ignore[union-attr]


def test_the_same_run_again_is_the_same(make_backend: Make) -> None:
    runs = []
    for _ in range(2):
        backend, executor = world(make_backend, timer=Ticks())
        mini = Mini(executor)
        mini.admit(jobs())
        mini.drain(11)
        rows = [{k: v for k, v in row.items() if k not in ("wall_s", "cpu_s")} for row in backend.measurements()]
        runs.append((outputs(backend), mini.now, rows))
    assert runs[0] == runs[1]


def test_nothing_is_kept_of_jobs_that_are_over(make_backend: Make) -> None:
    backend, executor = world(make_backend)
    mini, batch = Mini(executor), jobs()
    mini.admit(batch)
    mini.step()
    executor.drop(batch[0].id)
    backend.drop(batch[0].id)
    del mini.live[batch[0].id]
    mini.drain()
    assert len(backend.sequences) == 0
    assert len(backend.results) == len(batch) - 1
    for each in batch:
        backend.results.release(each.request)
    assert len(backend.results) == 0


def test_a_cancelled_job_in_flight_is_not_reported(make_backend: Make) -> None:
    _, executor = world(make_backend)
    only = job(1, 4)
    plan = Plan(0, 0.0, [], [])
    plan.rows = [Row(only, 0, 4, [1])]
    end = executor.start(plan, 0.0)
    executor.drop(only.id)
    assert executor.finish(plan, end).stopped == []


def test_rows_beyond_the_known_tokens_are_an_error(make_backend: Make) -> None:
    _, executor = world(make_backend)
    plan = Plan(0, 0.0, [], [])
    with pytest.raises(ValueError, match="no rows"):
        executor.start(plan, 0.0)
    plan.rows = [Row(job(1, 4), 0, 5, [1, 2])]
    with pytest.raises(ValueError, match="known tokens"):
        executor.start(plan, 0.0)


def test_a_plan_lasts_as_long_as_its_parts_by_the_clock(make_backend: Make) -> None:
    """Four marks a pass, one second apart: three seconds, whatever `repeat` permits."""
    backend, executor = world(make_backend, timer=Ticks())
    plan = Plan(0, 5.0, [], [], repeat=9)
    plan.rows = [Row(job(0, 4), 0, 4, [1])]
    assert executor.start(plan, 5.0) == 8.0
    assert executor.cut(plan, 6.0) is None
    assert executor.progress(plan, 7.0) == 0
    outcome = executor.finish(plan, 8.0)
    assert (outcome.passes, outcome.first_s, outcome.stopped) == (1, 3.0, [])
    (row,) = backend.measurements()
    assert (row["prep_s"], row["forward_s"], row["sample_s"], row["seconds"]) == (1.0, 1.0, 1.0, 3.0)
    assert row["wall_s"] > 0


@pytest.mark.parametrize("clock", ["work", "wall"])
def test_real_clocks_measure_what_happened(make_backend: Make, clock: str) -> None:
    """Parts add up to no more than all that passed around them (marks lie inside the wall and CPU readings)."""
    backend, executor = world(make_backend, clock=clock)
    mini = Mini(executor)
    mini.admit(jobs())
    mini.drain()
    column = {"work": "cpu_s", "wall": "wall_s"}[clock]
    rows = backend.measurements()
    assert len(rows) == mini.passes
    assert all(0 < row["seconds"] <= row[column] for row in rows)
    assert mini.now == pytest.approx(sum(row["seconds"] for row in rows))


@pytest.mark.parametrize("spec", SPECS[1:], ids=lambda spec: spec.name)
def test_other_families_and_half_precision_run(make_backend: Make, spec: object) -> None:
    backend = make_backend(precision="bf16")
    executor = backend.executor(replace(POOL, model=spec), 0, Fixed(LENGTHS))
    mini = Mini(executor)
    mini.admit(jobs())
    mini.drain(9)
    assert [len(ids) for ids in outputs(backend)] == list(LENGTHS.values())

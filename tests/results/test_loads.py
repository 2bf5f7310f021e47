"""Cold starts, read off the tables."""

from __future__ import annotations

import numpy as np
import pytest

from airi_sim.core.log import TABLES
from airi_sim.results.columns import Columns
from airi_sim.results.loads import cold_starts, loads


def rows(table: str, *given: dict[str, object]) -> Columns:
    return Columns(table, [tuple(one.get(name) for name in TABLES[table]) for one in given])


def plan(server: str, kind: str, start: float, end: float, passes: int = 1) -> dict[str, object]:
    size = 100 if kind in ("load", "unload") else 7
    return {"server": server, "kind": kind, "start_s": start, "end_s": end, "passes": passes, "prefill_tokens": size}


def job(server: str, submitted: float, started: float | None) -> dict[str, object]:
    return {"server": server, "submitted_s": submitted, "started_s": started}


PLANS = rows(
    "plans", plan("a", "load", 1, 2), plan("a", "pass", 2, 3), plan("a", "unload", 5, 5.5), plan("a", "load", 9, 11),
    plan("b", "load", 2, 4), plan("b", "load", 6, 7, passes=0),
)  # fmt: skip


def test_a_job_that_came_before_its_model_waited_for_it() -> None:
    jobs = rows("jobs", job("a", 0.5, 2.0), job("a", 1.5, 2.5), job("a", 3.0, 3.5), job("a", 8.0, 12.0))
    assert cold_starts(jobs, PLANS).tolist() == pytest.approx([1.5, 0.5, np.nan, 3.0], nan_ok=True)


def test_jobs_of_other_servers_and_such_that_never_started_did_not() -> None:
    jobs = rows("jobs", job("b", 1.0, 4.0), job("c", 1.0, 4.0), job("", 1.0, None), job("b", 5.0, 8.0))
    assert cold_starts(jobs, PLANS).tolist() == pytest.approx([3.0, np.nan, np.nan, np.nan], nan_ok=True)


def test_the_summary_counts_what_came_to_its_end() -> None:
    found = loads(rows("jobs", job("a", 0.5, 2.0)), PLANS)
    assert (found["count"], found["unloads"], found["bytes"], found["cold"]) == (3, 1, 300.0, 1)
    assert found["s"]["mean"] == pytest.approx(5 / 3)
    assert found["cold_s"]["max"] == 1.5


def test_a_run_without_loads_has_none() -> None:
    found = loads(rows("jobs", job("a", 0.5, 2.0)), rows("plans", plan("a", "pass", 0, 1)))
    assert (found["count"], found["cold"], found["s"]["mean"]) == (0, 0, None)

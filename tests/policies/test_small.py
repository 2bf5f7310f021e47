"""Evictors, faults and the fixed model router."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from airi_sim.core.errors import BadInput
from airi_sim.core.types import Verdict
from airi_sim.policies.evictors import LastIn, Lru, SwapLong
from airi_sim.policies.faults import Fail, Retry
from airi_sim.policies.models import Fixed
from tests.policies.fakes import Columns, job


def test_evictors_take_the_ends_of_the_order_of_admission() -> None:
    running = {id: job(id) for id in (7, 1, 4)}
    assert LastIn().victim(running, 0.0) is running[4]
    assert Lru().victim(running, 0.0) is running[7]
    assert list(running) == [7, 1, 4]


def test_long_jobs_are_swapped_and_short_ones_computed_again() -> None:
    evictor = SwapLong(least=5)
    assert [evictor.swaps(job(), tokens, 0.0) for tokens in (4, 5, 6)] == [False, True, True]
    with pytest.raises(BadInput, match="least=-1"):
        SwapLong(least=-1)


def test_retries_double_their_pause_and_end() -> None:
    verdicts = [Retry(limit=3, backoff_s=0.5).lost(job(), attempt, 9.0) for attempt in (1, 2, 3, 4)]
    assert [verdict.retry_s for verdict in verdicts] == [0.5, 1.0, 2.0, None]
    assert not any(verdict.admit for verdict in verdicts)
    assert "3 retries" in verdicts[-1].reason


def test_without_backoff_a_retry_is_at_once() -> None:
    policy = Retry(limit=2)
    assert [policy.lost(job(), attempt, 0.0).admit for attempt in (1, 2, 3)] == [True, True, False]
    assert policy.lost(job(), 3, 0.0).retry_s is None


def test_fail_never_retries() -> None:
    assert Fail().lost(job(), 1, 0.0) == Verdict(False, None, "its server died")


@pytest.mark.parametrize(("named", "chosen"), [(None, "small"), ("large", "large"), ("elsewhere", "small")])
def test_fixed_takes_the_named_pool_where_it_serves_else_the_first(named: str | None, chosen: str) -> None:
    assert Fixed(named).choose(job(), {"small": Columns([0]), "large": Columns([0])}, 0.0) == chosen


@pytest.mark.parametrize("make", [lambda: Retry(limit=0), lambda: Retry(backoff_s=-1), lambda: Retry(backoff_s=inf)])
def test_bad_arguments_are_refused_in_one_sentence(make: Callable[[], Any]) -> None:
    with pytest.raises(BadInput, match=r"^[^\n]*\.$"):
        make()

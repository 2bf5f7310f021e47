"""Token times and gaps without expanding tokens: equal to keeping every single one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airi_sim.results.columns import Columns
from airi_sim.results.tokens import Tokens, pass_ends
from tests.results.conftest import Toy


def tokens_of(toy: Toy) -> Tokens:
    return Tokens(Columns("plans", toy.rows["plans"]), Columns("spans", toy.rows["spans"]))


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_every_token_time_is_recovered(seed):
    toy = Toy(seed)
    tokens = tokens_of(toy)
    for i, times in toy.tokens.items():
        np.testing.assert_allclose(tokens.times(i * 1000), times, atol=1e-9)


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_pooled_gaps_are_those_of_all_tokens(seed):
    toy = Toy(seed)
    values, weights = tokens_of(toy).gaps()
    expanded = np.sort(np.repeat(values, weights))
    every = np.sort(np.concatenate([np.diff(times) for times in toy.tokens.values()]))
    np.testing.assert_allclose(expanded, every, atol=1e-9)


def test_toy_logs_have_what_makes_gaps_hard():
    toys = [Toy(seed) for seed in range(5)]
    spans = [span for toy in toys for span in toy.rows["spans"]]
    assert any(not span[6] for span in spans), "a span that joins without a token"
    assert len({(id(toy), span[2]) for toy in toys for span in toy.rows["spans"]}) < len(spans), "a job with two spans"
    assert any(plan[4] > 1 for toy in toys for plan in toy.rows["plans"]), "a plan of several passes"


@given(st.integers(1, 50), st.floats(0.001, 10), st.floats(0, 3))
def test_passes_of_a_plan_end_in_order_and_fill_it(passes, total, share):
    first = min(total, share * total / passes)
    ends = pass_ends(np.array([1.0]), np.array([1.0 + total]), np.array([passes]), np.array([first]))
    assert len(ends) == passes
    assert ends[-1] == 1.0 + total
    assert (np.diff(ends) >= -1e-9).all()
    if passes > 1:
        assert ends[0] == pytest.approx(1.0 + first)


def test_unknown_first_pass_means_equal_passes():
    ends = pass_ends(np.array([0.0]), np.array([1.0]), np.array([4]), np.array([np.nan]))
    np.testing.assert_allclose(ends, [0.25, 0.5, 0.75, 1.0])


def test_a_run_without_tokens_has_no_gaps():
    values, weights = Tokens(Columns("plans", []), Columns("spans", [])).gaps()
    assert len(values) == len(weights) == 0

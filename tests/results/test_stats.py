"""Descriptions of samples: laws, and closed forms."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airi_sim.core.errors import BadInput
from airi_sim.results.stats import STATISTICS, describe, mean_interval, paired_interval

counted = st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(0, 6)), min_size=1).filter(
    lambda s: any(w for _, w in s)
)


@given(counted)
def test_weights_are_the_same_as_repeating(sample):
    values, weights = (np.array(side) for side in zip(*sample, strict=True))
    repeated = describe(np.repeat(values.astype(float), weights))
    assert describe(values.astype(float), weights) == pytest.approx(repeated, rel=1e-9, abs=1e-6)


@given(st.lists(st.floats(0, 1e3), min_size=1))
def test_percentiles_are_ordered(values):
    told = describe(np.array(values))
    levels = [told[name] for name in ("p50", "p90", "p95", "p99", "max")]
    assert all(low <= high for low, high in pairwise(levels))


def test_undefined_values_are_left_out_and_nothing_is_null():
    assert describe(np.array([1.0, np.nan, 3.0]))["mean"] == 2.0
    assert describe(np.array([np.nan])) == dict.fromkeys(STATISTICS)


def test_interval_is_students():
    told = mean_interval([1.0, 2.0, 3.0, 4.0])
    half = 3.182446305 * np.sqrt(5 / 3) / 2  # t quantile 0.975 with 3 degrees of freedom
    assert (told.mean, told.n) == (2.5, 4)
    assert (told.low, told.high) == pytest.approx((2.5 - half, 2.5 + half))


def test_pairing_takes_out_what_both_share():
    shared = np.array([10.0, 20.0, 30.0, 40.0])
    told = paired_interval(shared + 1 + np.array([0, 0.1, 0, 0.1]), shared)
    assert told.clear
    assert told.high - told.low < 0.3


def test_too_few_seeds_or_uneven_pairs_are_refused():
    with pytest.raises(BadInput, match="at least 2 seeds"):
        mean_interval([1.0])
    with pytest.raises(BadInput, match="same seeds"):
        paired_interval([1.0, 2.0], [1.0])

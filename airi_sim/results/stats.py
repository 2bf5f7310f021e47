"""Describing samples: means, percentiles of weighted values, confidence intervals of paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from airi_sim.core.errors import BadInput
from airi_sim.results.columns import Counts, Floats, Ints

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0}
STATISTICS = ("mean", *PERCENTILES, "max")

Description = dict[str, float | None]


class Interval(NamedTuple):
    """A mean and where the true one lies with the stated confidence (Student's t)."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def clear(self) -> bool:
        """The interval excludes zero."""
        return self.low > 0 or self.high < 0


def describe(values: Floats, weights: Ints | Counts | None = None) -> Description:
    """mean, p50, p90, p95, p99, max of the values (each counted `weights` times); undefined ones (nan) are left out,
    and every figure is None if none is left."""
    kept = ~np.isnan(values) if weights is None else ~np.isnan(values) & (weights > 0)
    if not kept.all():  # else copies of long columns would be for nothing
        values, weights = values[kept], None if weights is None else weights[kept]
    if not len(values):
        return dict.fromkeys(STATISTICS)
    levels = percentiles(values, list(PERCENTILES.values()), weights)
    named = zip(PERCENTILES, levels.tolist(), strict=True)
    return {"mean": float(np.average(values, weights=weights)), **dict(named), "max": float(values.max())}


def percentiles(values: Floats, levels: Sequence[float], weights: Ints | Counts | None = None) -> Floats:
    """Percentiles with linear interpolation (numpy's default) of the sample in which each value occurs `weights`
    times, without building that sample."""
    if weights is None:
        return np.percentile(values, levels)
    order = np.argsort(values)
    ordered, ends = values[order], np.cumsum(weights[order], dtype=np.int64)
    del order
    ranks = np.asarray(levels) / 100 * (ends[-1] - 1)
    below = np.floor(ranks)
    low = ordered[np.searchsorted(ends, below, side="right")]
    high = ordered[np.searchsorted(ends, np.ceil(ranks), side="right")]
    return low + (ranks - below) * (high - low)


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Confidence interval of the mean of independent values, one a seed. At least two are needed."""
    from scipy.stats import t

    sample = np.asarray(values, dtype=np.float64)
    if sample.size < 2:
        raise BadInput(f"a confidence interval needs at least 2 seeds, there is {sample.size}; give more seeds.")
    mean = float(sample.mean())
    half = float(t.ppf((1 + confidence) / 2, sample.size - 1) * sample.std(ddof=1) / np.sqrt(sample.size))
    return Interval(mean, mean - half, mean + half, sample.size)


def paired_interval(a: ArrayLike, b: ArrayLike, confidence: float = 0.95) -> Interval:
    """Interval of the mean of a - b, pair by pair. With common random numbers (the same seed on both sides of a pair)
    it is much narrower than that of two independent samples."""
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if left.shape != right.shape:
        raise BadInput(f"pairs need the same seeds on both sides: there are {left.size} and {right.size} values.")
    return mean_interval(left - right, confidence)

"""Service times of the queues: their moments, density and tail for the closed forms, samples for the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import factorial, sqrt
from typing import Any

import numpy as np

Array = Any
"""A numpy array, or one float: the functions of a size are written for both."""


@dataclass(frozen=True)
class Size:
    """A distribution of service times: `mean` and `second` moment (seconds, seconds squared), `tail(x)` = P(S > x),
    `density(x)`, and `draw(rng, n)`."""

    name: str
    mean: float
    second: float
    tail: Callable[[Array], Array]
    density: Callable[[Array], Array]
    draw: Callable[[np.random.Generator, int], np.ndarray]

    @property
    def scv(self) -> float:
        """Variance over the squared mean."""
        return self.second / self.mean**2 - 1


def exponential(mean: float = 1.0) -> Size:
    """Memoryless."""
    return Size(
        "M", mean, 2 * mean**2, lambda x: np.exp(-x / mean), lambda x: np.exp(-x / mean) / mean,
        lambda rng, n: rng.exponential(mean, n),
    )  # fmt: skip


def constant(value: float = 1.0) -> Size:
    """Always the same; it has no density, so none of the forms that need one takes it."""
    return Size("D", value, value**2, lambda x: np.where(x < value, 1.0, 0.0), _none, lambda _, n: np.full(n, value))


def _none(_: Array) -> Array:
    raise ValueError("a constant has no density")


def erlang(k: int, mean: float = 1.0) -> Size:
    """Sum of k exponentials: as regular as 1/k."""
    rate = k / mean
    return Size(
        f"E{k}", mean, mean**2 * (1 + 1 / k),
        lambda x: np.exp(-rate * x) * sum((rate * x) ** i / factorial(i) for i in range(k)),
        lambda x: rate * (rate * x) ** (k - 1) / factorial(k - 1) * np.exp(-rate * x),
        lambda rng, n: rng.gamma(k, 1 / rate, n),
    )  # fmt: skip


def hyper(scv: float, mean: float = 1.0) -> Size:
    """Two exponentials with balanced means: a few long jobs among many short ones, squared variation `scv` > 1."""
    p = (1 + sqrt((scv - 1) / (scv + 1))) / 2
    fast, slow = 2 * p / mean, 2 * (1 - p) / mean

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        rates = np.where(rng.random(n) < p, fast, slow)
        return rng.exponential(1.0, n) / rates

    return Size(
        f"H2(c2={scv:g})", mean, mean**2 * (1 + scv),
        lambda x: p * np.exp(-fast * x) + (1 - p) * np.exp(-slow * x),
        lambda x: p * fast * np.exp(-fast * x) + (1 - p) * slow * np.exp(-slow * x), draw,
    )  # fmt: skip

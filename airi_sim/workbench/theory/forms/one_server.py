"""One server: in order of arrival, by size, by class; set-up and breakdowns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import exp, factorial, floor, log

import numpy as np

from airi_sim.workbench.theory.sizes import Size

# -- one server


def mg1_wait(rate: float, size: Size) -> float:
    """Pollaczek-Khinchine: the mean wait of M/G/1 in order of arrival."""
    return rate * size.second / (2 * (1 - rate * size.mean))


def mm1_time_quantile(rate: float, p: float) -> float:
    """M/M/1 with unit service: the sojourn is exponential with rate 1 - rate."""
    return -log(1 - p) / (1 - rate)


def md1_wait_cdf(rate: float, t: float) -> float:
    """M/D/1 with unit service: P(wait <= t) (Erlang 1909)."""
    terms = [exp(rate * (t - j)) * (-rate * (t - j)) ** j / factorial(j) for j in range(floor(t) + 1)]
    return (1 - rate) * sum(terms)


def batch_arrivals_wait(load: float, k: int) -> float:
    """M^[k]/M/1 with unit service: groups of k arrive together; mean wait of a job."""
    return load / (1 - load) + (k - 1) / (2 * (1 - load))


# -- one server, orders that look at sizes


GRID = 400_000
REACH = 60.0


class _Partial:
    """Integrals of a size up to x on a fine grid, by the trapezoid rule."""

    def __init__(self, rate: float, size: Size) -> None:
        self.x = np.linspace(0, REACH * size.mean * max(1.0, size.scv), GRID)
        self.rate, self.mass, self.tail = rate, size.density(self.x), size.tail(self.x)

    def upto(self, values: np.ndarray) -> np.ndarray:
        """The integral of `values` from 0 to every x."""
        steps = np.diff(self.x) * (values[1:] + values[:-1]) / 2
        return np.concatenate([[0.0], np.cumsum(steps)])

    def mean(self, values: np.ndarray) -> float:
        """Over all sizes."""
        return float(self.upto(values * self.mass)[-1])

    @property
    def free(self) -> np.ndarray:
        """1 - rho(x): the share of time that jobs up to x leave to others."""
        return 1 - self.rate * self.upto(self.x * self.mass)


def sjf_time(rate: float, size: Size) -> float:
    """Shortest job first, not preemptive (Phipps 1956)."""
    part = _Partial(rate, size)
    return size.mean + part.mean(rate * size.second / (2 * part.free**2))


def psjf_time(rate: float, size: Size) -> float:
    """Preemptive shortest job first: by original size (Wierman & Harchol-Balter 2003)."""
    part = _Partial(rate, size)
    return part.mean(rate * part.upto(part.x**2 * part.mass) / (2 * part.free**2) + part.x / part.free)


def srpt_time(rate: float, size: Size) -> float:
    """Shortest remaining processing time (Schrage & Miller 1966)."""
    part = _Partial(rate, size)
    waiting = rate * (part.upto(part.x**2 * part.mass) + part.x**2 * part.tail) / (2 * part.free**2)
    return part.mean(waiting + part.upto(1 / part.free))


def las_time(rate: float, size: Size) -> float:
    """Least attained service, foreground-background (Kleinrock 1976, volume 2)."""
    part = _Partial(rate, size)
    free = 1 - rate * part.upto(part.tail)
    return part.mean(rate * part.upto(2 * part.x * part.tail) / (2 * free**2) + part.x / free)


def ps_time(rate: float, mean: float) -> float:
    """Processor sharing: whatever the sizes, only their mean counts (Sakata et al. 1971)."""
    return mean / (1 - rate * mean)


# -- one server, classes


def priority_waits(rates: Sequence[float], seconds: Sequence[float], means: Sequence[float]) -> list[float]:
    """Mean wait of each class, most urgent first, not preemptive (Cobham 1954); `seconds` are second moments."""
    residual = sum([rate * second for rate, second in zip(rates, seconds, strict=True)]) / 2
    loads = np.cumsum([0.0, *(rate * mean for rate, mean in zip(rates, means, strict=True))])
    return [float(residual / ((1 - before) * (1 - upto))) for before, upto in pairwise(loads)]


def preemptive_times(rates: Sequence[float]) -> list[float]:
    """Mean sojourn of each class with unit exponential service, preemptive and resumed (White & Christie 1958)."""
    loads = np.cumsum([0.0, *rates])
    return [float((1 + upto / (1 - upto)) / (1 - before)) for before, upto in pairwise(loads)]


def conserved(rates: Sequence[float], seconds: Sequence[float], means: Sequence[float]) -> float:
    """Kleinrock's conservation law: the load-weighted sum of waits under any order that looks at no sizes."""
    residual = sum([rate * second for rate, second in zip(rates, seconds, strict=True)]) / 2
    load = sum([rate * mean for rate, mean in zip(rates, means, strict=True)])
    return load * residual / (1 - load)


# -- set-up and breakdowns


def set_up_time(rate: float, size: Size, first: float, second: float) -> float:
    """M/G/1 that must wake up when a job finds it empty; `first` and `second` moment of the set-up (Welch 1964)."""
    return size.mean + mg1_wait(rate, size) + (2 * first + rate * second) / (2 * (1 + rate * first))


def breakdown_time(rate: float, size: Size, failures: float, repair: float) -> float:
    """M/G/1 that fails at that rate while it works, exponential repair, work resumed (Gaver 1962)."""
    longer = 1 + failures * repair
    second = size.second * longer**2 + 2 * size.mean * failures * repair**2
    mean = size.mean * longer
    return mean + rate * second / (2 * (1 - rate * mean))


def attempts(p: float, retries: int) -> tuple[float, float]:
    """Tries that fail with probability p, at most so many retries: the mean number, and the share that succeeds."""
    return (1 - p ** (retries + 1)) / (1 - p), 1 - p ** (retries + 1)

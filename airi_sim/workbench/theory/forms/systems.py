"""Networks of queues, batches, passes that jobs share, parallelism, caches, bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from math import ceil, log

import numpy as np

from airi_sim.workbench.theory.forms.chains import birth_death, poisson, stationary

# -- networks


def fork_join_time(load: float) -> float:
    """A job splits over two M/M/1 with unit service and waits for both parts (Flatto & Hahn 1984)."""
    return (12 - load) / 8 / (1 - load)


def harmonic(n: int) -> float:
    """The mean of the longest of n unit exponentials."""
    return sum([1 / k for k in range(1, n + 1)])


def tandem_time(rate: float, services: Sequence[float]) -> float:
    """Stations in a row with exponential service (Jackson 1957)."""
    return sum([1 / (mu - rate) for mu in services])


def mva(users: int, think: float, demands: Sequence[float]) -> tuple[float, float]:
    """Closed loop of `users` that think and then visit every station: throughput and response time, by exact mean value
    analysis (Reiser & Lavenberg 1980)."""
    queues = np.zeros(len(demands))
    throughput, times = 0.0, np.zeros(len(demands))
    for n in range(1, users + 1):
        times = np.asarray(demands) * (1 + queues)
        throughput = n / (think + float(times.sum()))
        queues = throughput * times
    return throughput, float(times.sum())


# -- batches


def batch_time(rate: float, seconds: Callable[[int], float], cap: int, most: int) -> float:
    """One server that takes all who wait, at most `cap`, and works seconds(batch) on them, Poisson arrivals: the chain
    of those left at the end of each batch (Bailey 1954), and the area under the queue in between. `most` cuts it."""
    rows, area, length = np.zeros((most + 1, most + 1)), np.zeros(most + 1), np.zeros(most + 1)
    for q in range(most + 1):
        present = max(q, 1)
        lasts = seconds(min(present, cap))
        left = max(0, present - cap)
        rows[q, left:] = poisson(rate * lasts, most - left)
        area[q] = present * lasts + rate * lasts**2 / 2
        length[q] = lasts + (1 / rate if q == 0 else 0.0)
    law = stationary(rows)
    return float(law @ area / (law @ length)) / rate


def batch_bound(rate: float, each: float, base: float) -> float:
    """Above the mean sojourn when batches of b take base + each * b seconds (Inoue 2021, phi_1)."""
    load = rate * each
    return 3 * base / (2 * (1 - load)) + each / 2 * (load + 2) / (1 - load**2)


# -- continuous batching


def lockstep_time(rate: float, passes: float, base: float, each: float) -> float:
    """Continuous batching as a symmetric queue: a pass of n jobs takes base + each * n seconds, a job needs `passes` of
    them. Its mean sojourn depends on the law of lengths through the mean alone; exact for many passes."""
    return passes * (base + each) / (1 - rate * passes * each)


def lockstep_law(rate: float, passes: float, base: float, each: float, upto: int) -> np.ndarray:
    """P(0), ..., P(upto) jobs: negative binomial with r = 1 + base/each, p = rate * passes * each."""
    r, p = 1 + base / each, rate * passes * each
    steps = [log((n - 1 + r) / n * p) for n in range(1, upto + 1)]
    return np.exp(r * log(1 - p) + np.concatenate([[0.0], np.cumsum(steps)]))


def capped_lockstep(rate: float, passes: float, base: float, each: float, cap: int) -> tuple[float, float]:
    """The same with at most `cap` jobs at a time and geometric lengths: mean sojourn, mean number running."""
    law = birth_death(rate, lambda k: min(k, cap) / (passes * (base + each * min(k, cap))), 4000)
    present = np.arange(len(law))
    return float(law @ present) / rate, float(law @ np.minimum(present, cap))


# -- parallelism (DistServe and AlpaServe: M/D/1, D seconds on one device, R requests a second)


def one_device(r: float, d: float) -> float:
    """Everything on one device."""
    return d + r * d * d / (2 * (1 - r * d))


def two_stages(r: float, d: float) -> float:
    """A pipeline of two equal stages."""
    return d + r * d * d / (4 * (2 - r * d))


def tensor_parallel(r: float, d: float, speedup: float) -> float:
    """Both devices on each request."""
    return d / speedup + r * d * d / (2 * speedup * (speedup - r * d))


def bubble(stages: int, microbatches: int) -> float:
    """The share of time a pipeline idles (Huang et al. 2019)."""
    return (stages - 1) / (microbatches + stages - 1)


def ring_all_reduce(ranks: int, size: float, bandwidth: float, latency: float) -> float:
    """2(p-1) steps of size/p bytes (Patarasuk & Yuan 2009)."""
    return 2 * (ranks - 1) * (size / ranks / bandwidth + latency)


# -- caches


def zipf(items: int, exponent: float) -> np.ndarray:
    """Popularity of the items, most popular first."""
    weights = np.arange(1, items + 1, dtype=float) ** -exponent
    return weights / weights.sum()


def che_hit_rate(popularity: np.ndarray, room: int) -> float:
    """LRU with independent references, many items (Che, Tung & Wang 2002)."""
    from scipy.optimize import brentq

    t = brentq(lambda t: float((1 - np.exp(-popularity * t)).sum()) - room, 0, 1e12)
    return float(popularity @ (1 - np.exp(-popularity * t)))


def lru_hit_rate(popularity: np.ndarray, room: int) -> float:
    """LRU with independent references, exact: over all orders of the cache (King 1971). A few items only."""
    hit = 0.0
    for order in permutations(range(len(popularity)), room):
        chance, left = 1.0, 1.0
        for item in order:
            chance *= popularity[item] / left
            left -= popularity[item]
        hit += chance * float(popularity[list(order)].sum())
    return hit


# -- bounds


def vtc_bound(prompt: float, batch_tokens: float, w_in: float = 1.0, w_out: float = 2.0) -> float:
    """Service difference of two backlogged tenants under VTC (Sheng et al. 2024): `prompt` the longest one,
    `batch_tokens` the most tokens a running batch can hold."""
    return 2 * max(w_in * prompt, w_out * batch_tokens)


def bounded_load(jobs: int, servers: int, slack: float) -> int:
    """Consistent hashing with bounded loads (Mirrokni et al. 2018): the most jobs on one server."""
    return ceil((1 + slack) * jobs / servers)

"""Closed forms of queueing theory. Pure functions: rates per second, times in seconds, sizes as in sizes.py.

`wait` is the time before service, `time` the whole sojourn. Where a source writes a recursion or the stationary
equations of a chain, they are solved numerically here, without simulation; every one says where it comes from. Sums
over the states of a chain are cut where what is left is below 1e-12.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise, permutations
from math import ceil, exp, factorial, floor, log, sqrt

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


# -- several servers, loss, impatience


def erlang_b(servers: int, offered: float) -> float:
    """The share of calls lost, whatever the law of service (Erlang 1917)."""
    lost = 1.0
    for k in range(1, servers + 1):
        lost = offered * lost / (k + offered * lost)
    return lost


def erlang_c(servers: int, offered: float) -> float:
    """The share of jobs that wait in M/M/c."""
    lost = erlang_b(servers, offered)
    return lost / (1 - offered / servers * (1 - lost))


def mmc_wait(servers: int, offered: float) -> float:
    """Mean wait of M/M/c with unit service."""
    return erlang_c(servers, offered) / (servers - offered)


def _birth_death(birth: float, death: Callable[[int], float], most: int) -> np.ndarray:
    """The stationary law of a birth-death chain on 0..most with one birth rate."""
    logs = np.concatenate([[0.0], np.cumsum([log(birth / death(k)) for k in range(1, most + 1)])])
    weights = np.exp(logs - logs.max())
    return weights / weights.sum()


def mmck(offered: float, servers: int, room: int) -> tuple[float, float]:
    """M/M/c/K with unit service: the share lost, and the mean sojourn of those who entered."""
    law = _birth_death(offered, lambda k: min(k, servers), room)
    return float(law[-1]), float(law @ np.arange(room + 1) / (offered * (1 - law[-1])))


def erlang_a(rate: float, servers: int, patience: float) -> tuple[float, float]:
    """M/M/c+M with unit service and exponential patience of that mean: the share that leaves, the mean wait of all."""
    law = _birth_death(rate, lambda k: min(k, servers) + max(0, k - servers) / patience, 10 * servers + 400)
    queue = float(law @ np.maximum(0, np.arange(len(law)) - servers))
    return queue / patience / rate, queue / rate


def _next_law(law: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The stationary law of a chain with transition matrix `rows`."""
    n = len(law)
    system = np.vstack([rows.T - np.eye(n), np.ones(n)])
    return np.linalg.lstsq(system, np.append(np.zeros(n), 1.0), rcond=None)[0]


def _poisson(mean: float, most: int) -> np.ndarray:
    """P(0), ..., P(most); what is beyond is put on the last."""
    logs = np.arange(most + 1) * log(mean) - mean - np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, most + 1)))])
    law = np.exp(logs)
    law[-1] += max(0.0, 1 - law.sum())
    return law


def mdc_wait(servers: int, offered: float, most: int = 400) -> float:
    """M/D/c with unit service: who is in the system one service later are those who had no server, and who came
    (Crommelin 1932)."""
    rows = np.zeros((most + 1, most + 1))
    for q in range(most + 1):
        left = max(0, q - servers)
        rows[q, left:] = _poisson(offered, most - left)
    law = _next_law(np.zeros(most + 1), rows)
    return float(law @ np.arange(most + 1)) / offered - 1


# -- many servers, a router in front


def round_robin_time(servers: int, load: float) -> float:
    """Each server sees every n-th arrival: E_n/M/1 with unit service."""
    sigma = 0.5
    for _ in range(10_000):
        sigma = (servers * load / (servers * load + 1 - sigma)) ** servers
    return 1 / (1 - sigma)


def choices_time(load: float, d: int) -> float:
    """The shortest of d random queues, infinitely many servers (Vvedenskaya et al. 1996, Mitzenmacher 2001)."""
    return float(sum(_tails(load, d)) / load)


def choices_time_of(servers: int, load: float, d: int) -> float:
    """The same with the 1/n term of finitely many servers (Gast & Van Houdt 2017, refined mean field). Error: 1/n^2."""
    from scipy.linalg import solve_continuous_lyapunov

    tails = _tails(load, d)
    n = len(tails)
    before = np.concatenate([[1.0], tails[:-1]])
    after = np.append(tails[1:], 0.0)
    drift = np.diag(-load * d * tails ** (d - 1) - 1) + np.diag(np.ones(n - 1), 1)
    drift += np.diag(load * d * tails[:-1] ** (d - 1), -1)
    noise = np.diag(load * (before**d - tails**d) + tails - after)
    spread = np.diag(solve_continuous_lyapunov(drift, -noise))
    bend = load * d * (d - 1) / 2 * tails ** (d - 2) * spread
    shift = np.linalg.solve(drift, -(np.concatenate([[0.0], bend[:-1]]) - bend))
    return float((tails.sum() + shift.sum() / servers) / load)


def _tails(load: float, d: int) -> np.ndarray:
    """The share of queues with at least 1, 2, ... jobs, down to 1e-14."""
    tails = [load]
    while tails[-1] > 1e-14:
        tails.append(load * tails[-1] ** d)
    return np.array(tails)


@lru_cache
def shortest_of_two_time(load: float, most: int = 60) -> float:
    """Join the shorter of two queues with unit exponential service: the chain on (shorter, longer), cut at `most`."""
    from scipy.sparse import coo_matrix, eye
    from scipy.sparse.linalg import spsolve

    states = {(i, j): n for n, (i, j) in enumerate((i, j) for i in range(most + 1) for j in range(i, most + 1))}
    moves: list[tuple[int, int, float]] = []
    for (i, j), n in states.items():
        steps = [((i + 1, j), 2 * load), ((i - 1, j), 1.0), ((i, j - 1), 1.0)]
        for (a, b), rate in steps:
            to = states.get((min(a, b), max(a, b)))
            if to is not None:
                moves += [(to, n, rate), (n, n, -rate)]
    rows, columns, rates = zip(*moves, strict=True)
    flow = (coo_matrix((rates, (rows, columns)), (len(states), len(states)))).tocsr()
    law = spsolve((flow - 1e-13 * eye(len(states))).tocsc(), np.eye(1, len(states)).ravel())
    law /= law.sum()
    return float(law @ np.array([i + j for i, j in states])) / (2 * load)


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
        rows[q, left:] = _poisson(rate * lasts, most - left)
        area[q] = present * lasts + rate * lasts**2 / 2
        length[q] = lasts + (1 / rate if q == 0 else 0.0)
    law = _next_law(np.zeros(most + 1), rows)
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
    law = _birth_death(rate, lambda k: min(k, cap) / (passes * (base + each * min(k, cap))), 4000)
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


def young_daly(saving: float, between: float) -> float:
    """How often to checkpoint: `saving` seconds each, `between` failures (Young 1974, Daly 2006)."""
    return sqrt(2 * saving * between)

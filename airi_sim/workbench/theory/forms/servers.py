"""Several servers: one line, no line, a line each behind a router."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from airi_sim.workbench.theory.forms.chains import birth_death, poisson, stationary


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


def mmck(offered: float, servers: int, room: int) -> tuple[float, float]:
    """M/M/c/K with unit service: the share lost, and the mean sojourn of those who entered."""
    law = birth_death(offered, lambda k: min(k, servers), room)
    return float(law[-1]), float(law @ np.arange(room + 1) / (offered * (1 - law[-1])))


def erlang_a(rate: float, servers: int, patience: float) -> tuple[float, float]:
    """M/M/c+M with unit service and exponential patience of that mean: the share that leaves, the mean wait of all."""
    law = birth_death(rate, lambda k: min(k, servers) + max(0, k - servers) / patience, 10 * servers + 400)
    queue = float(law @ np.maximum(0, np.arange(len(law)) - servers))
    return queue / patience / rate, queue / rate


def mdc_wait(servers: int, offered: float, most: int = 400) -> float:
    """M/D/c with unit service: who is in the system one service later are those who had no server, and who came
    (Crommelin 1932)."""
    rows = np.zeros((most + 1, most + 1))
    for q in range(most + 1):
        left = max(0, q - servers)
        rows[q, left:] = poisson(offered, most - left)
    law = stationary(rows)
    return float(law @ np.arange(most + 1)) / offered - 1


# -- a router in front


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

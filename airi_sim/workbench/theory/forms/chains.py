"""Stationary laws of small Markov chains, solved numerically, for forms whose source writes the equations."""

from __future__ import annotations

from collections.abc import Callable
from math import log

import numpy as np


def birth_death(birth: float, death: Callable[[int], float], most: int) -> np.ndarray:
    """The stationary law of a birth-death chain on 0..most with one birth rate."""
    logs = np.concatenate([[0.0], np.cumsum([log(birth / death(k)) for k in range(1, most + 1)])])
    weights = np.exp(logs - logs.max())
    return weights / weights.sum()


def stationary(rows: np.ndarray) -> np.ndarray:
    """The stationary law of a chain with transition matrix `rows`: one equation gives way to the sum of all."""
    system = rows.T - np.eye(len(rows))
    system[-1] = 1.0
    return np.linalg.solve(system, np.eye(len(rows))[-1])


def poisson(mean: float, most: int) -> np.ndarray:
    """P(0), ..., P(most); what is beyond is put on the last."""
    logs = np.arange(most + 1) * log(mean) - mean - np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, most + 1)))])
    law = np.exp(logs)
    law[-1] += max(0.0, 1 - law.sum())
    return law

"""Routers that look at nothing but who is up."""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import inf

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import View
from airi_sim.core.types import Job
from airi_sim.policies.routers.common import alive


class RoundRobin:
    """Each replica in turn. Needs to know nothing, and is blind to how unlike jobs are."""

    def __init__(self) -> None:
        self._last = -1

    def route(self, job: Job, view: View, now: float) -> int:
        up, n = view.column("up", now), view.n
        turn = (self._last + 1) % n
        for _ in range(n):
            if up[turn]:
                break
            turn = (turn + 1) % n
        self._last = turn
        return turn


class Random:
    """A replica at random, uniform over those that are up."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed).random

    def route(self, job: Job, view: View, now: float) -> int:
        up = view.column("up", now)
        pick = int(self._draw() * view.n)
        if up[pick]:
            return pick
        alive = [i for i in range(view.n) if up[i]] or [pick]
        return alive[int(self._draw() * len(alive))]


class Weighted:
    """Each replica in turn, as often as its weight says, evenly spread (smooth weighted round robin of nginx).

    `weights`: one number a replica (null: all alike). Every turn a replica gains its weight; the one that has most
    goes, and pays the sum of all. Ties go to the lowest index.
    """

    def __init__(self, weights: Sequence[float] | None = None) -> None:
        if weights is not None and not (weights and all(0 < w < inf for w in weights)):
            raise BadInput(f"weights of Weighted are {weights}: give a positive number for each replica.")
        self.weights = weights
        self._credit: list[float] = []

    def route(self, job: Job, view: View, now: float) -> int:
        weights = self.weights or [1.0] * view.n
        if len(weights) != view.n:
            raise BadInput(f"Weighted has {len(weights)} weights for {view.n} replicas: give one for each.")
        credit = self._credit = self._credit or [0.0] * view.n
        candidates = alive(view.column("up", now))
        for i in candidates:
            credit[i] += weights[i]
        turn = max(candidates, key=credit.__getitem__)
        credit[turn] -= sum([weights[i] for i in candidates])
        return turn

"""Which replica. Every router passes over replicas that are down (`up` is 0); where all are, any index is as good."""

from __future__ import annotations

import random
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import View
from airi_sim.core.types import Job

MANY = 64
"""From so many replicas on, numpy finds the least of a column faster than `min` does."""


def least(loads: Sequence[int], up: Sequence[int]) -> int:
    """The replica with the least load among those that are up; ties go to the lowest index."""
    many = len(loads) >= MANY and isinstance(loads, array)
    best = int(_as_numpy(loads).argmin()) if many else loads.index(min(loads))
    if up[best]:
        return best
    return min((i for i in range(len(loads)) if up[i]), key=loads.__getitem__, default=best)


def spread(loads: Sequence[int], up: Sequence[int]) -> tuple[int, int]:
    """The least and the greatest load among the replicas that are up; (0, 0) if none is."""
    if len(loads) >= MANY and isinstance(loads, array) and isinstance(up, array):
        alive = _as_numpy(loads)[_as_numpy(up) != 0]
        return (int(alive.min()), int(alive.max())) if len(alive) else (0, 0)
    if 0 in up:
        loads = [load for load, alive in zip(loads, up, strict=True) if alive] or [0]
    return min(loads), max(loads)


def _as_numpy(column: Any) -> Any:
    """The column of an array, not copied. Imported late: small pools do without numpy."""
    import numpy as np

    return np.frombuffer(column, dtype=column.typecode)


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


class Jsq:
    """Join the shortest queue: the fewest jobs waiting and running; ties go to the lowest index.

    Best of the queue-counting rules while the view is fresh; on a stale view it herds everybody onto one replica.
    """

    def route(self, job: Job, view: View, now: float) -> int:
        return least(view.column("outstanding", now), view.column("up", now))


class PowerOfTwo:
    """Power of d choices (Mitzenmacher 2001): of `d` replicas drawn with replacement the one with the shortest queue.

    Ties go to the one drawn first, else idle replicas of high index would never be used. Herds far less than JSQ
    on a stale view. If all that were drawn are down, the shortest queue among the rest.
    """

    def __init__(self, seed: int, d: int = 2) -> None:
        if d < 1:
            raise BadInput(f"d of PowerOfTwo is {d}: draw at least 1 replica.")
        self.d = d
        self._draw = random.Random(seed).random

    def route(self, job: Job, view: View, now: float) -> int:
        loads, up = view.column("outstanding", now), view.column("up", now)
        best = -1
        for _ in range(self.d):
            pick = int(self._draw() * view.n)
            if up[pick] and (best < 0 or loads[pick] < loads[best]):
                best = pick
        return best if best >= 0 else least(loads, up)


class PrefixAffinity:
    """Cache-aware routing of the SGLang router: where the prompt's prefix went before, unless loads drift apart.

    1. If the longest and shortest queue differ by more than `balance_abs` and by more than a factor `balance_rel`:
       the shortest queue. 2. Else, if more than `threshold` of the prompt's prefix ids went to one replica before:
       that replica (of several the least loaded). 3. Else the replica believed to hold the fewest ids; for a job
       without prefix ids the shortest queue.

    What a replica holds is this router's own belief: the ids it sent there, at most `capacity` of them in all,
    least recently used forgotten first and the tail of a prompt before its head, like leaves of a radix tree.
    """

    def __init__(
        self, threshold: float = 0.5, balance_abs: int = 32, balance_rel: float = 1.1, capacity: int = 1_000_000
    ) -> None:
        if not 0 <= threshold <= 1:
            raise BadInput(f"threshold of PrefixAffinity is {threshold} and must be a fraction between 0 and 1.")
        if balance_abs < 0 or balance_rel < 1:
            raise BadInput("PrefixAffinity needs balance_abs >= 0 jobs and balance_rel >= 1.")
        if capacity < 1:
            raise BadInput(f"capacity of PrefixAffinity is {capacity}: it must remember at least 1 prefix id.")
        self.threshold = threshold
        self.balance_abs = balance_abs
        self.balance_rel = balance_rel
        self.capacity = capacity
        self._holders: OrderedDict[int, int] = OrderedDict()  # prefix id -> replicas, one bit each
        self._held = array("q")

    def route(self, job: Job, view: View, now: float) -> int:
        loads, up = view.column("outstanding", now), view.column("up", now)
        self._held.extend([0] * (view.n - len(self._held)))
        replica = self._choose(job, loads, up)
        self._remember(job.prefix, replica)
        return replica

    def _choose(self, job: Job, loads: Sequence[int], up: Sequence[int]) -> int:
        if not job.prefix or self._unbalanced(loads, up):
            return least(loads, up)
        matched, holders = self._match(job.prefix)
        if matched > self.threshold * len(job.prefix):
            alive = [i for i in _bits(holders) if up[i]]
            if alive:
                return min(alive, key=loads.__getitem__)
        return least(self._held, up)

    def _unbalanced(self, loads: Sequence[int], up: Sequence[int]) -> bool:
        shortest, longest = spread(loads, up)
        return longest - shortest > self.balance_abs and longest > self.balance_rel * shortest

    def _match(self, prefix: Sequence[int]) -> tuple[int, int]:
        """How many leading ids some replica holds, and which replicas hold so many."""
        matched, holders = 0, -1
        for hash_id in prefix:
            common = holders & self._holders.get(hash_id, 0)
            if not common:
                break
            matched, holders = matched + 1, common
        return matched, holders if matched else 0

    def _remember(self, prefix: Sequence[int], replica: int) -> None:
        holders, bit = self._holders, 1 << replica
        for hash_id in reversed(prefix):
            known = holders.get(hash_id, 0)
            if not known & bit:
                self._held[replica] += 1
            holders[hash_id] = known | bit
            holders.move_to_end(hash_id)
        while len(holders) > self.capacity:
            for forgetful in _bits(holders.popitem(last=False)[1]):
                self._held[forgetful] -= 1


def _bits(mask: int) -> Iterator[int]:
    """Positions of the bits that are set, lowest first."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low

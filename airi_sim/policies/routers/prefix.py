"""Routers that look at where the beginning of a prompt may still be in memory."""

from __future__ import annotations

import random
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import exp
from typing import NamedTuple

from airi_sim.core.errors import BadInput, unknown
from airi_sim.core.protocols import View
from airi_sim.core.types import Job
from airi_sim.policies.routers.common import alive, least, spread

Scores = list[float]


class Asked(NamedTuple):
    """What a scorer is given."""

    job: Job
    view: View
    now: float


Scorer = Callable[[Asked], Scores]


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


class KvCost:
    """The least blocks to compute plus blocks in use (the KV router of NVIDIA Dynamo).

    cost = `prefill_weight` * prefill blocks + decode blocks, where prefill blocks are the prompt tokens that wait
    there plus what of this prompt is not in memory there, in blocks, and decode blocks are those in use. Ties go to
    the lowest index. With a `temperature` above 0 the replica is drawn, with chances as exp(-cost / temperature).
    """

    def __init__(self, seed: int, prefill_weight: float = 1.0, temperature: float = 0.0) -> None:
        if not prefill_weight >= 0 or not temperature >= 0:
            raise BadInput("KvCost needs prefill_weight >= 0 and temperature >= 0.")
        self.prefill_weight = prefill_weight
        self.temperature = temperature
        self._draw = random.Random(seed).random

    def route(self, job: Job, view: View, now: float) -> int:
        costs, candidates = self.costs(job, view, now), alive(view.column("up", now))
        if not self.temperature:
            return min(candidates, key=costs.__getitem__)
        lowest = min([costs[i] for i in candidates])
        chances = [exp((lowest - costs[i]) / self.temperature) for i in candidates]
        left = self._draw() * sum(chances)
        for i, chance in zip(candidates, chances, strict=True):
            left -= chance
            if left < 0:
                return i
        return candidates[-1]

    def costs(self, job: Job, view: View, now: float) -> Scores:
        """Of every replica, in blocks."""
        queued, used = view.column("queued_tokens", now), view.column("kv_used_blocks", now)
        uncached = [job.tokens - view.matched(i, job) for i in range(view.n)]
        return [
            self.prefill_weight * (waiting + new) / view.block + decode
            for waiting, new, decode in zip(queued, uncached, used, strict=True)
        ]


def _prefix(asked: Asked) -> Scores:
    return [asked.view.matched(i, asked.job) / asked.job.prompt for i in range(asked.view.n)]


def _queue(asked: Asked) -> Scores:
    return _short(asked.view.column("waiting", asked.now))


def _active(asked: Asked) -> Scores:
    return _short(asked.view.column("outstanding", asked.now))


def _kv(asked: Asked) -> Scores:
    used, total = asked.view.column("kv_used_blocks", asked.now), asked.view.column("kv_total_blocks", asked.now)
    return [1 - u / max(1, t) for u, t in zip(used, total, strict=True)]


def _relative(column: Sequence[int]) -> Scores:
    """From 0 (the least) to 1 (the most); 0 where all are alike."""
    least, most = min(column), max(column)
    return [(value - least) / (most - least) if most > least else 0.0 for value in column]


def _short(column: Sequence[int]) -> Scores:
    return [1 - value for value in _relative(column)]


SCORERS: dict[str, Scorer] = {"prefix": _prefix, "queue": _queue, "kv": _kv, "active": _active}
"""Every one gives each replica a score from 0 to 1, more is better."""


class Scored:
    """The greatest weighted sum of scores (the endpoint picker of llm-d and the Gateway API inference extension).

    `weights` by name: prefix (share of the prompt that is in memory there), queue (shortest 1, longest 0), active (the
    same for jobs waiting and running), kv (share of blocks that are free). Null: prefix 2, queue 1, kv 1. Ties go to
    the lowest index.
    """

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self.weights = dict(weights or {"prefix": 2.0, "queue": 1.0, "kv": 1.0})
        for name in self.weights:
            if name not in SCORERS:
                raise unknown("scorer of Scored", name, SCORERS)

    def route(self, job: Job, view: View, now: float) -> int:
        sums = self.scores(job, view, now)
        return max(alive(view.column("up", now)), key=sums.__getitem__)

    def scores(self, job: Job, view: View, now: float) -> Scores:
        """Of every replica, weighted and summed."""
        sums = [0.0] * view.n
        for name, weight in self.weights.items():
            scores = SCORERS[name](Asked(job, view, now))
            sums = [so_far + weight * score for so_far, score in zip(sums, scores, strict=True)]
        return sums

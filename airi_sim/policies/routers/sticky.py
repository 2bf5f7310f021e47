"""Routers that send what belongs together to the same place."""

from __future__ import annotations

from bisect import bisect
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from math import ceil, inf
from typing import Literal

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import View
from airi_sim.core.types import Job
from airi_sim.policies.routers.common import alive, least, total


class ConsistentHash:
    """A ring of hashes: a key goes to the next replica on it, so that few keys move when replicas come and go (Karger
    et al., STOC 1997); with bounded loads a full replica is passed over (Mirrokni et al., SODA 2018).

    `key`: the session of a job, its tenant, or the first id of its prefix; a job without goes by its own id. Full is
    who has (1 + `epsilon`) times the mean of jobs there are with this one, rounded up (null: nobody ever is). Each
    replica stands on the ring `points` times.
    """

    def __init__(
        self,
        key: Literal["session", "tenant", "prefix"] = "session",
        epsilon: float | None = 0.25,
        points: int = 100,
    ) -> None:
        if epsilon is not None and not epsilon > 0:
            raise BadInput(f"epsilon of ConsistentHash is {epsilon} and must be more than 0, or null.")
        if points < 1:
            raise BadInput(f"points of ConsistentHash is {points}: a replica must stand on the ring at least once.")
        self.key = key
        self.epsilon = epsilon
        self.points = points
        self._ring: list[tuple[int, int]] = []

    def route(self, job: Job, view: View, now: float) -> int:
        ring = self._ring = self._ring or sorted(
            [(_hash(f"{i}/{point}"), i) for i in range(view.n) for point in range(self.points)]
        )
        loads = total(view.column("outstanding", now), view.column("sent", now))
        up = view.column("up", now)
        start, bound = bisect(ring, (_hash(self._name(job)), 0)), self._bound(loads, up)
        passed: set[int] = set()
        for at in range(start, start + len(ring)):
            replica = ring[at % len(ring)][1]
            if up[replica] and loads[replica] < bound:
                return replica
            passed.add(replica)
            if len(passed) == view.n:
                break
        return least(loads, up)

    def _name(self, job: Job) -> str:
        if self.key == "prefix":
            return f"p{job.prefix[0]}" if job.prefix else f"j{job.id}"
        return getattr(job, self.key) or f"j{job.id}"

    def _bound(self, loads: Sequence[int], up: Sequence[int]) -> float:
        if self.epsilon is None:
            return inf
        candidates = alive(up)
        return ceil((1 + self.epsilon) * (sum([loads[i] for i in candidates]) + 1) / len(candidates))


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


class SessionSticky:
    """A session stays where it began, where its conversation is in memory.

    It moves to the shortest queue when its replica is down, has more than `gap` jobs more than the shortest queue, or
    was not heard of for `ttl_s` seconds. Jobs without a session go to the shortest queue.
    """

    def __init__(self, gap: int = 32, ttl_s: float = 600.0) -> None:
        if gap < 0 or not ttl_s > 0:
            raise BadInput("SessionSticky needs gap >= 0 jobs and ttl_s > 0 seconds.")
        self.gap = gap
        self.ttl_s = ttl_s
        self._homes: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def route(self, job: Job, view: View, now: float) -> int:
        loads, up = view.column("outstanding", now), view.column("up", now)
        shortest = least(loads, up)
        if not job.session:
            return shortest
        self._expire(now)
        home, _ = self._homes.pop(job.session, (shortest, now))
        if not up[home] or loads[home] - loads[shortest] > self.gap:
            home = shortest
        self._homes[job.session] = (home, now)
        return home

    def _expire(self, now: float) -> None:
        homes = self._homes
        while homes and now - next(iter(homes.values()))[1] > self.ttl_s:
            homes.popitem(last=False)

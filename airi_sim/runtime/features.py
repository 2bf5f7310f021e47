"""A feature server: values looked up by key, with a cache in front whose every hit is decided here, for both worlds.

What a job asks for are the ids in its `prefix` if its program named them, else keys drawn by popularity. The tokens of
a job are its keys; those the cache knows are `cached`, as the tokens of a prompt found in a prefix cache are.
"""

from __future__ import annotations

from bisect import bisect
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import accumulate, islice
from math import inf
from random import Random
from typing import Any

from airi_sim.core.errors import BadInput, PolicyError
from airi_sim.core.log import Log
from airi_sim.core.protocols import Cache, Executor, Queue
from airi_sim.core.types import Ended, Job, Plan
from airi_sim.runtime.job import LiveJob
from airi_sim.runtime.service import SlotServer

KEYS, SKEW, ENTRIES = 100_000, 1.0, 10_000
"""Of a feature pool that does not say: keys there are, how unlike their popularity is, room of the cache."""
DRAW = 0x9E3779B97F4A7C15
"""An odd number that spreads seeds; jobs whose ids differ by one draw unlike keys."""


class Popularity:
    """Which keys a job asks for: key k (from 0) with probability proportional to (k + 1)**-skew, by seed and job."""

    def __init__(self, keys: int, skew: float = 1.0, seed: int = 0) -> None:
        if keys < 1 or not 0 <= skew < inf:
            raise BadInput(f"features need keys from 1 and a skew from 0; got {keys} keys with skew {skew}.")
        self.seed = seed
        self.keys = keys
        self.upto = list(accumulate([(k + 1) ** -skew for k in range(keys)]))

    def of(self, job: Job) -> list[int]:
        """The keys of a job, `job.prompt` many; the same in every world and at every try."""
        if job.prefix:
            return [key % self.keys for key in job.prefix[: job.prompt]]
        draw, upto = Random((self.seed << 64) ^ (job.id * DRAW)).random, self.upto
        total, last = upto[-1], self.keys - 1
        return [min(bisect(upto, total * draw()), last) for _ in range(job.prompt)]


class FeatureCache:
    """Values by key: at most `entries`, each for `ttl_s` seconds from when it was read; 0 entries is no cache. When
    room is needed the policy says which goes, without one the least recently used. What has expired stays until it is
    read again or goes.

    `values` is filled only by an executor that really looks values up; keys that go take their values along.
    """

    def __init__(self, entries: int, ttl_s: float = inf, make_policy: Callable[[], Cache] | None = None) -> None:
        if entries < 0 or not ttl_s > 0:
            raise BadInput(f"a feature cache needs 0 entries or more, and a ttl above 0 s; got {entries} and {ttl_s}.")
        self.entries, self.ttl_s, self.make_policy = entries, ttl_s, make_policy
        self.until: OrderedDict[int, float] = OrderedDict()
        self.values: dict[int, Any] = {}
        self.clear()

    def clear(self) -> None:
        """Begin empty: its server is new, or died."""
        self.policy = self.make_policy() if self.make_policy is not None else None
        self.use = getattr(self.policy, "use", None)
        self.free = getattr(self.policy, "free", None)
        self.until.clear()
        self.values.clear()

    def find(self, keys: Sequence[int], now: float) -> list[int]:
        """Those of different `keys` that are known at `now`; they count as used."""
        found = [key for key in keys if now < self.until.get(key, -inf)]
        for key in found:
            self.until.move_to_end(key)
            self._used(key)
        return found

    def add(self, keys: Sequence[int], now: float) -> list[int]:
        """Different `keys` were read by `now`; returns what goes to make room."""
        if not self.entries:
            self.values.clear()
            return []
        for key in keys:
            self.until[key] = now + self.ttl_s
            self.until.move_to_end(key)
            self._used(key)
        over = len(self.until) - self.entries
        gone = self._victims(over) if over > 0 else []
        for key in gone:
            del self.until[key]
            self.values.pop(key, None)
        return gone

    def _used(self, key: int) -> None:
        """To a policy each key is a prompt of one unit, in use for a moment."""
        if self.use is not None:
            self.use((key,), (0,))
        if self.free is not None:
            self.free((key,))

    def _victims(self, n: int) -> list[int]:
        if self.policy is None:
            return list(islice(self.until, n))
        idle: Any = self.until
        gone: list[Any] = list(self.policy.victims(idle, n))
        if len(gone) != n or len(set(gone)) != n or not self.until.keys() >= set(gone):
            raise PolicyError(
                f"policy {type(self.policy).__name__} chose {gone!r} as victims: it must name {n} different keys of "
                f"the {len(self.until)} in the cache."
            )
        return gone


class FeatureServer(SlotServer):
    """`depth` look-ups at a time, each of all keys of a job. A key is known from when the look-up that read it is over.

    A job has its keys in `hashes`, and in `own` those that were found. Executors with a `share` method are given the
    cache when they are attached: they keep the values in it.
    """

    def __init__(
        self,
        name: str,
        index: int,
        make_queue: Callable[[], Queue],
        log: Log,
        *,
        cache: FeatureCache,
        keys: Popularity,
        depth: int = 1,
    ) -> None:
        super().__init__(name, index, make_queue, log, depth=depth)
        self.cache, self.keys = cache, keys
        self.chooser = type(cache.policy).__name__

    def attach(self, executor: Executor) -> None:
        share = getattr(executor, "share", None)
        if share is not None:
            share(self.cache)

    def _send(self, jobs: list[LiveJob], now: float, choice: str) -> Plan:
        """The plan counts keys to be read as `prefill_tokens` and those found as `shared`."""
        (job,) = jobs
        keys = self.keys.of(job)
        different = tuple(dict.fromkeys(keys))
        job.own = self.cache.find(different, now)
        missed = len(different) - len(job.own)
        job.hashes, job.cached = tuple(keys), len(keys) - missed
        plan = super()._send(jobs, now, f"found {job.cached} of {len(keys)}")
        plan.prefill_tokens, plan.shared = missed, job.cached
        return plan

    def commit(self, plan: Plan, outcome: Ended, now: float) -> list[LiveJob]:
        job: LiveJob = plan.slices[0][0]
        gone = self.cache.add(missed_keys(job), now)
        if gone:
            self.log.decide(self.name, self.chooser, job.id, f"forget {' '.join(map(str, gone))}", self.passes)
        return super().commit(plan, outcome, now)

    def fail(self, now: float) -> list[LiveJob]:
        """See TokenServer.fail; the cache is lost too."""
        self.cache.clear()
        return super().fail(now)


def missed_keys(job: LiveJob) -> tuple[int, ...]:
    """The different keys of a job under way that its cache did not know, in the order of asking."""
    found = set(job.own)
    return tuple([key for key in dict.fromkeys(job.hashes) if key not in found])

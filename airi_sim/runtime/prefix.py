"""The prefix cache of a replica, and the physical block tables for executors that really store KV."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice
from typing import Any

from airi_sim.core.errors import PolicyError
from airi_sim.core.protocols import Cache
from airi_sim.runtime.job import LiveJob


class PrefixCache:
    """Hash of a prompt prefix -> references. Unreferenced ones stay, and go when `policy` says: without one least
    recently used first, the deepest block of a prompt before its parents. One hash stands for `unit` KV blocks.
    `shared` counts references beyond the first of each hash."""

    def __init__(self, unit: int, policy: Cache | None = None) -> None:
        self.unit = unit
        self.policy = policy
        self.use = getattr(policy, "use", None)
        self.free = getattr(policy, "free", None)
        self.references: dict[Any, int] = {}
        self.idle: OrderedDict[Any, None] = OrderedDict()
        self.version = self.shared = 0

    def match(self, hashes: Sequence[Any], limit: int) -> int:
        """Leading hashes that are resident, at most `limit`."""
        references = self.references
        n = 0
        for h in hashes[:limit]:
            if h not in references:
                break
            n += 1
        return n

    def pinned(self, hashes: Sequence[Any]) -> int:
        """How many of these resident hashes nobody refers to now: locking them takes them off the evictable ones."""
        idle = self.idle
        return sum([h in idle for h in hashes])

    def lock(self, hashes: Sequence[Any]) -> None:
        """One more reference to each."""
        references, idle = self.references, self.idle
        for h in hashes:
            if references[h] == 0:
                del idle[h]
            else:
                self.shared += 1
            references[h] += 1
        if self.use is not None:
            self.use(hashes, range(len(hashes)))

    def insert(self, hashes: Sequence[Any], start: int, stop: int) -> list[Any]:
        """Those of hashes `start` to `stop` of a prompt that were not resident are now, with one reference; returns
        them."""
        references = self.references
        places = [i for i in range(start, stop) if hashes[i] not in references]
        new = [hashes[i] for i in places]
        for h in new:
            references[h] = 1
        self.version += bool(new)
        if self.use is not None:
            self.use(hashes, places)
        return new

    def release(self, hashes: Sequence[Any]) -> int:
        """One reference less to each; returns how many became evictable."""
        references, idle = self.references, self.idle
        freed = []
        for h in reversed(hashes):
            left = references[h] - 1
            references[h] = left
            if left:
                self.shared -= 1
            else:
                idle[h] = None
                freed.append(h)
        if self.free is not None:
            self.free(freed)
        return len(freed)

    def evict(self, n: int) -> list[Any]:
        """Forget `n` of the idle ones; returns them."""
        gone = list(islice(self.idle, n)) if self.policy is None else self._chosen(self.policy, n)
        for h in gone:
            del self.idle[h], self.references[h]
        self.version += 1
        return gone

    def _chosen(self, policy: Cache, n: int) -> list[Any]:
        """The victims of a policy, which must be `n` different idle ones."""
        gone = list(policy.victims(self.idle, n))
        if len(gone) != n or len(set(gone)) != n or not self.idle.keys() >= set(gone):
            raise PolicyError(
                f"policy {type(policy).__name__} chose {gone!r} as victims: it must name {n} different units of the "
                f"{len(self.idle)} idle ones."
            )
        return gone


class Pages:
    """Physical block ids behind the counts: who holds which, in order. Ids run from 1; 0 is left for padding.

    A unit of a job's table belongs to the cache exactly when the cache lists the same ids for that hash.
    """

    def __init__(self, total: int, block: int, unit: int) -> None:
        self.block = block
        self.unit = unit
        self.spare = list(range(total, 0, -1))
        self.cached: dict[Any, list[int]] = {}

    def cover(self, job: LiveJob, tokens: int) -> None:
        """Give `job` blocks until they hold `tokens` tokens."""
        spare, table = self.spare, job.table
        for _ in range(-(-tokens // self.block) - len(table)):
            table.append(spare.pop())

    def shrink(self, job: LiveJob, tokens: int) -> None:
        """Take back the blocks of `job` beyond those that hold `tokens` tokens."""
        kept = -(-tokens // self.block)
        self.spare.extend(reversed(job.table[kept:]))
        del job.table[kept:]

    def share(self, job: LiveJob, hashes: Sequence[Any]) -> None:
        """`job` starts with these cached units."""
        job.table = [page for h in hashes for page in self.cached[h]]

    def publish(self, job: LiveJob, new: Sequence[Any]) -> None:
        """These units of `job` belong to the cache from now on."""
        fresh = set(new)
        for i, h in enumerate(job.hashes):
            if h in fresh:
                self.cached[h] = job.table[i * self.unit : (i + 1) * self.unit]

    def release(self, job: LiveJob) -> None:
        """Take back the blocks of `job` that the cache does not own."""
        table, unit, cached = job.table, self.unit, self.cached
        owned = len(job.hashes) * unit
        for i, h in enumerate(job.hashes):
            pages = table[i * unit : (i + 1) * unit]
            if cached.get(h) != pages:
                self.spare.extend(reversed(pages))
        self.spare.extend(reversed(table[owned:]))
        job.table = []

    def forget(self, gone: Sequence[Any]) -> None:
        """The cache evicted these."""
        for h in gone:
            self.spare.extend(reversed(self.cached.pop(h)))


def prefix_hashes(prefix: tuple[int, ...], tokens: int, hash_block: int, block: int) -> tuple[tuple[Any, ...], int]:
    """The hashes of a prompt in units of whole KV blocks, and blocks per unit.

    An id says 'the content up to here is the same', so where ids and blocks do not align, block i is named by its
    number and the id that covers its last token.
    """
    if hash_block % block == 0:
        return prefix, hash_block // block
    if block % hash_block == 0:
        step = block // hash_block
        return prefix[step - 1 :: step], 1
    ends = [-(-(i + 1) * block // hash_block) - 1 for i in range(tokens // block)]
    return tuple([(i, prefix[e]) for i, e in enumerate(ends) if e < len(prefix)]), 1

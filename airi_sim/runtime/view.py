"""What the control plane may know: columns over the replicas of a pool, live or as of the last publication tick."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Protocol

from airi_sim.core.errors import unknown
from airi_sim.core.types import Job

COLUMNS = (
    "waiting",
    "running",
    "outstanding",
    "queued_tokens",
    "inflight_tokens",
    "kv_used_blocks",
    "kv_total_blocks",
    "up",
    "sent",
)


class Replica(Protocol):
    """What a board asks of a server."""

    total: int
    jobs: Any
    running: Any
    coming: int
    queued_tokens: int
    inflight_tokens: int

    def kv_used(self, now: float) -> int: ...


class Board:
    """Columns over the replicas, read by policies. Servers only say that they changed (`changed`); their numbers are
    fetched when somebody reads. With `period` seconds of staleness readers see the state at the last multiple of it:
    an exact snapshot at the tick, without timers or copies of what did not change.

    KV in use moves inside a run of equal passes, so it is asked for whenever it is read (or at the tick).
    """

    def __init__(self, replicas: Sequence[Replica], period: float = 0.0, memory_tokens: int = 0) -> None:
        self.n = len(replicas)
        self.period = period
        self.replicas = replicas
        self.live = {name: array("q", [0] * self.n) for name in COLUMNS}
        for i, replica in enumerate(replicas):
            self.live["up"][i] = 1
            self.live["kv_total_blocks"][i] = replica.total
        self.seen = {name: array("q", column) for name, column in self.live.items()} if period else self.live
        self.changed: set[int] = set()
        self.dirty: set[int] = set()
        self.epoch = 0
        self.watches_kv = False
        self.beliefs = [Belief(memory_tokens) for _ in replicas]
        self.hash_block = 1
        self.block = getattr(replicas[0], "block", 1) if replicas else 1

    def _fetch(self) -> None:
        """Bring the live columns up to date."""
        live = self.live
        for i in self.changed:
            server = self.replicas[i]
            all_jobs, running = len(server.jobs) + server.coming, len(server.running)
            live["waiting"][i] = all_jobs - running
            live["running"][i] = running
            live["outstanding"][i] = all_jobs
            live["queued_tokens"][i] = server.queued_tokens
            live["inflight_tokens"][i] = server.inflight_tokens
        if self.period:
            self.dirty |= self.changed
        self.changed.clear()

    def mark(self, i: int, up: bool) -> None:
        """Replica `i` went down or came back, empty."""
        self.dirty.add(i)
        self.beliefs[i].ids.clear()
        self.live["up"][i] = int(up)

    def tick(self, now: float) -> None:
        """Publish, if a multiple of the period has passed since the last time. Only changed rows are copied.

        Must be called before anything changes at `now`, so that what is published is the state at the tick.
        """
        epoch = int(now / self.period)
        if epoch == self.epoch:
            return
        self.epoch = epoch
        self._fetch()
        for name, column in self.live.items():
            seen = self.seen[name]
            for i in self.dirty:
                seen[i] = column[i]
        self.dirty.clear()
        self.live["sent"] = self.seen["sent"] = array("q", bytes(8 * self.n))
        if self.watches_kv:
            self._look_at_kv(epoch * self.period)

    def _look_at_kv(self, at: float) -> None:
        seen = self.seen["kv_used_blocks"]
        for i, replica in enumerate(self.replicas):
            seen[i] = replica.kv_used(at)

    def column(self, name: str, now: float) -> Sequence[int]:
        """See core.protocols.View."""
        if self.period:
            self.tick(now)
        elif self.changed and name != "up":
            self._fetch()
        if name == "kv_used_blocks" and not (self.watches_kv and self.period):
            self.watches_kv = True
            self._look_at_kv(now)
        try:
            return self.seen[name]
        except KeyError:
            raise unknown("column", name, COLUMNS) from None

    def matched(self, replica: int, job: Job) -> int:
        """See core.protocols.View."""
        return min(job.prompt, self.beliefs[replica].matched(job.prefix) * self.hash_block)

    def routed(self, replica: int, job: Job) -> None:
        """A job went to `replica`: its prompt will be resident there."""
        if job.prefix:
            self.beliefs[replica].add(job.prefix)
        if self.period:
            self.seen["sent"][replica] += 1


class Belief:
    """Prefix ids believed to be on one replica; at most `capacity` of them, least recently routed first to go."""

    __slots__ = ("capacity", "ids")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.ids: OrderedDict[int, None] = OrderedDict()

    def matched(self, prefix: Sequence[int]) -> int:
        ids = self.ids
        n = 0
        for h in prefix:
            if h not in ids:
                break
            n += 1
        return n

    def add(self, prefix: Sequence[int]) -> None:
        ids = self.ids
        for h in reversed(prefix):
            ids[h] = None
            ids.move_to_end(h)
        while len(ids) > self.capacity:
            ids.popitem(last=False)

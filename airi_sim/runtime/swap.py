"""A replica that copies KV blocks: to the host and back instead of computing them again, and on write.

Swap: a job that loses its memory keeps its KV on the host, if that has room and the evictor wants it (`swaps`), and
waits in the queue like any other. When it is admitted again it goes on where it was: what is still in the prefix cache
is shared, the rest comes back into other blocks, and the token it was about to process is a chunk of one. Where the
host is full it is computed again. What a server that dies had on the host is lost with it.

Copy on write: of a prompt that is cached to its last token that token must still be processed, which writes into a
block that others read. Without a copy the last unit of the cache is computed anew; with one it is copied and a single
token computed.

Copies are part of the plan that needs them, and it runs one pass. All that they read on the device is as it was before
the plan, so it does not matter to whom a block went meanwhile. Runs without them have a plain TokenServer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from airi_sim.core.types import Copies, Copy, Job, Plan, copying
from airi_sim.runtime.job import LiveJob
from airi_sim.runtime.token_server import TokenServer


class Kept(NamedTuple):
    """KV of a job on the host: so many tokens, in so many blocks; their ids where blocks are really stored."""

    tokens: int
    blocks: int
    ids: Sequence[int]


class Host:
    """The part of the host's memory that one replica may use, in KV blocks."""

    def __init__(self, total: int, detailed: bool) -> None:
        self.total = self.free = total
        self.kept: dict[int, Kept] = {}
        self.spare = list(range(total)) if detailed else None

    def keep(self, job: int, tokens: int, blocks: int) -> Kept:
        """Room for a job, by id; there must be some."""
        ids: list[int] = []
        if self.spare is not None:
            ids, self.spare = self.spare[:blocks], self.spare[blocks:]
        self.free -= blocks
        kept = self.kept[job] = Kept(tokens, blocks, ids)
        return kept

    def drop(self, job: int) -> None:
        """Nothing of this job is kept any more."""
        kept = self.kept.pop(job, None)
        if kept is None:
            return
        self.free += kept.blocks
        if self.spare is not None:
            self.spare = sorted([*self.spare, *kept.ids])  # neighbours are copied in one go


class CopyingServer(TokenServer):
    """A TokenServer that swaps to `host_blocks` blocks of host memory, and with `copy_on_write` copies blocks that
    others read. Only for servers with one plan in flight (`depth` 1)."""

    __slots__ = ("back", "copy_on_write", "host", "host_blocks", "inside", "out", "swaps")

    host: Host
    out: dict[int, Copy]
    inside: dict[int, Copy]
    back: dict[int, Copy]

    def __init__(self, *parts: Any, host_blocks: int = 0, copy_on_write: bool = False, **more: Any) -> None:
        self.host_blocks, self.copy_on_write = host_blocks, copy_on_write
        super().__init__(*parts, **more)
        if self.depth != 1:
            raise ValueError(f"a server that copies KV blocks has one plan in flight, not depth={self.depth}")
        self.swaps = getattr(self.evictor, "swaps", None)

    def empty(self) -> None:
        super().empty()
        self.host = Host(self.host_blocks, self.detailed)
        self.out, self.inside, self.back = {}, {}, {}

    # -- out

    def preempt(self, job: Job, now: float) -> None:
        kept = self._keep(job, now) if isinstance(job, LiveJob) and job.id in self.running else None
        super().preempt(job, now)
        if kept is not None:
            self.choices[-1] = (job.id, f"swap out {kept.blocks}")

    def _keep(self, job: LiveJob, now: float) -> Kept | None:
        """Move the KV of a job that is about to lose its memory to the host, if it may and can."""
        if self._undone(job):
            return None
        tokens = job.done - job.sliced if job.lane is None else job.lane.tokens(job)
        blocks = -(-tokens // self.block)
        if blocks <= self._shared_by(job) or blocks > self.host.free:
            return None
        if self.swaps is not None and not self.swaps(job, tokens, now):
            return None
        kept = self.host.keep(job.id, tokens, blocks)
        self.out[job.id] = Copy(job, blocks, tuple(job.table[:blocks]) if self.pages is not None else (), kept.ids)
        return kept

    def _undone(self, job: LiveJob) -> bool:
        """Whether this very draft let it in: then it has only what it had before, on the host or in the cache."""
        for coming, choice in ((self.back, "swap in"), (self.inside, "copy")):
            copy = coming.pop(job.id, None)
            if copy is not None:
                self.choices.remove((job.id, f"{choice} {copy.blocks}"))
                return True
        return False

    def _shared_by(self, job: LiveJob) -> int:
        """Blocks that need no copy because the cache has them."""
        return len(job.own) * self.cache.unit if self.cache is not None else 0

    # -- in

    def admit(self, job: Job) -> bool:
        kept = self.host.kept.get(job.id)
        if kept is None or not isinstance(job, LiveJob) or job.id in self.running:
            return super().admit(job)
        return self.seats > 0 and self._return(job, kept)

    def _return(self, job: LiveJob, kept: Kept) -> bool:
        """Admit a job whose KV is on the host; False if there is no room."""
        shared = self._match(job)
        done = max(kept.tokens, shared * self.block)
        tokens = self._first(job.tokens - done)
        need = -(-(done + tokens) // self.block) - shared
        hashes = job.hashes[: job.hit] if shared else ()
        pinned = self.cache.pinned(hashes) * self.cache.unit if self.cache is not None else 0
        if not tokens or need + pinned > self.free - self.withheld:
            return False
        self._refer(job, hashes, hashes, pinned)
        job.done = done
        self._enter(job, need, tokens)
        blocks = max(0, kept.blocks - shared)
        table = tuple(job.table[shared : shared + blocks]) if self.pages is not None else ()
        self.back[job.id] = Copy(job, blocks, kept.ids[shared:], table)
        self.choices.append((job.id, f"swap in {blocks}"))
        return True

    def _match(self, job: LiveJob) -> int:
        """Blocks of a job that the cache still holds."""
        cache = self.cache
        if cache is None:
            return 0
        if job.cached_version != cache.version:
            job.hit = cache.match(job.hashes, (job.prompt - 1) // (cache.unit * self.block))
            job.cached_version = cache.version
        return job.hit * cache.unit

    def _refer(self, job: LiveJob, used: Sequence[Any], shared: Sequence[Any], pinned: int) -> None:
        """The job uses these cached units and shares them, except for a last one that it copies: that may go."""
        cache = self.cache
        if cache is None:
            return
        cache.lock(used)
        cache.release(used[len(shared) :])
        self.free -= pinned
        job.own = list(shared)
        job.held = len(shared) * cache.unit
        if self.pages is not None:
            self.pages.share(job, shared)

    def _enter(self, job: LiveJob, need: int, tokens: int) -> None:
        """The job has a seat and its first chunk."""
        self.running[job.id] = job
        self.seats -= 1
        self.queued_tokens -= job.tokens
        self._slice(job, need, tokens)
        if job.done < job.tokens:
            self.partial.append(job)

    # -- on write

    def _admit_cached(self, job: LiveJob) -> tuple[int, int] | None:
        found = self._admit_copied(job) if self.copy_on_write else None
        return found or super()._admit_cached(job)

    def _admit_copied(self, job: LiveJob) -> tuple[int, int] | None:
        """What `_admit_cached` answers for a prompt of which every token is cached: the last unit of it will be a copy,
        of which the last token is computed. None: it is not, or there is no room for the copy."""
        cache = self.cache
        assert cache is not None
        whole, rest = divmod(job.prompt, cache.unit * self.block)
        if rest or not 0 < whole <= len(job.hashes) or job.tokens > job.prompt or self.budget < 1:
            return None
        shared = self._match(job)
        hashes = job.hashes[:whole]
        if job.hit != whole - 1 or hashes[-1] not in cache.references:
            return None
        pinned = cache.pinned(hashes[:-1]) * cache.unit
        if cache.unit + pinned > self.free - self.withheld:
            return None
        source = tuple(self.pages.cached[hashes[-1]]) if self.pages is not None else ()
        self._refer(job, hashes, hashes[:-1], pinned)
        job.done = job.prompt - 1
        if not job.preemptions:
            job.cached = job.done
        self.inside[job.id] = Copy(job, cache.unit, source)
        self.choices.append((job.id, f"copy {cache.unit}"))
        return -(-job.prompt // self.block) - shared, 1

    # -- the plan

    def plan(self, now: float, once: bool = False) -> Plan | None:
        plan = super().plan(now, once)
        if plan is not None and (self.out or self.inside or self.back):
            plan = self.flights[0] = copying(plan, self._copies())
            for job in self.back:
                self.host.drop(job)
            self.out, self.inside, self.back = {}, {}, {}
        return plan

    def _copies(self) -> Copies:
        inside = [copy._replace(target=self._tail(copy)) for copy in self.inside.values()]
        return Copies(tuple(self.out.values()), tuple(inside), tuple(self.back.values()))

    def _tail(self, copy: Copy) -> Sequence[int]:
        """The blocks that a copy on write goes to: the last ones of the job's prompt."""
        job: Any = copy.job
        last = -(-job.prompt // self.block)
        return tuple(job.table[last - copy.blocks : last]) if self.pages is not None else ()

    def _gone(self, job: LiveJob, status: str) -> None:
        self.host.drop(job.id)
        self.out.pop(job.id, None)
        super()._gone(job, status)

"""The TokenServer while it drafts a pass: memory, seats and budget behind the narrow Draft protocol (core.protocols).

Memory: `free` blocks are those nobody holds or refers to (with a prefix cache some of them still hold content that may
be reused, `blank` do not). The growth of the coming pass is taken out when `decode` is called, so `free` never lies.
"""

from __future__ import annotations

from collections.abc import Mapping

from airi_sim.core.errors import PolicyError
from airi_sim.core.log import Log
from airi_sim.core.protocols import Batcher, Evictor, Queue
from airi_sim.core.types import Job, Plan
from airi_sim.runtime.job import LiveJob
from airi_sim.runtime.lockstep import Lockstep
from airi_sim.runtime.prefix import Pages, PrefixCache


class Drafting:
    """State and operations of a draft. Batchers get it typed as core.protocols.Draft. In slots: its numbers are read
    dozens of times a plan."""

    __slots__ = (
        "batcher", "blank", "block", "budget", "buried", "cache", "changed", "choices", "chunked", "closed",
        "decodes", "evictor", "flights", "free", "ghosts", "lane", "lanes", "limit", "log", "lookahead", "moving",
        "name", "now", "pages", "partial", "partials", "paused", "preempted", "queue", "queued_tokens", "reserved",
        "resumed", "running", "seats", "slices", "slot", "total", "withheld",
    )  # fmt: skip

    name: str
    queue: Queue
    batcher: Batcher
    evictor: Evictor
    lane: Lockstep
    lanes: list[Lockstep]
    cache: PrefixCache | None
    pages: Pages | None
    running: dict[int, LiveJob]
    paused: dict[int, LiveJob]
    partials: list[list[LiveJob]]
    partial: list[LiveJob]
    resumed: list[LiveJob]
    slices: list[tuple[LiveJob, int]]
    choices: list[tuple[int, str]]
    budget: int
    seats: int
    free: int
    blank: int
    withheld: int
    total: int
    block: int
    limit: int
    chunked: bool
    lookahead: int
    reserved: int
    decodes: bool
    closed: bool
    preempted: bool
    ghosts: int
    buried: bool
    queued_tokens: int
    now: float
    slot: int
    changed: set[int]
    moving: dict[int, LiveJob]
    flights: list[Plan]
    log: Log

    @property
    def decoding(self) -> int:
        return self.lane.count

    @property
    def sliced(self) -> bool:
        return bool(self.slices)

    @property
    def available(self) -> int:
        """Blocks this pass may still take: the free ones less those a batcher holds back."""
        return self.free - self.withheld

    @available.setter
    def available(self, blocks: int) -> None:
        self.withheld = self.free - blocks

    def attained(self, job: Job) -> int:
        live = self.running.get(job.id)
        if live is None:
            return getattr(job, "out", 0)
        lane = live.lane
        return live.out if lane is None else live.out + lane.passes - live.g0

    def filled(self, job: Job) -> int:
        live = self.running.get(job.id)
        return 0 if live is None else live.done

    def held(self, job: LiveJob) -> int:
        """KV blocks of a running job."""
        return job.held if job.lane is None else -(-job.lane.tokens(job) // self.block)

    def decode(self, now: float) -> None:
        lane = self.lane
        need = lane.growth(1 + self.lookahead) if self.lookahead else lane.phases[lane.passes % lane.block]
        while need > self.free:
            self.preempt(self._victim(now), now)
            need = lane.growth(1 + self.lookahead)
        self.decodes = True
        self.budget -= lane.count
        self.reserved = need
        if need:
            self.free -= need
            if self.cache is not None:
                self._claim(need)

    def chunk(self, job: Job, now: float) -> bool:
        live = self._live(job, "chunk")
        left = live.tokens - live.done
        tokens = left if left < self.budget else self.budget
        if tokens <= 0 or live.sliced or live.lane is not None or live.id in self.paused:
            return False
        if not self.chunked and tokens < left and self.slices:
            return False
        need = -(-(live.done + tokens) // self.block) - live.held
        while need > self.free - self.withheld:
            victim = self._victim(now)
            self.preempt(victim, now)
            if victim is live:
                return False
        self._slice(live, need, tokens)
        return True

    def admit(self, job: Job) -> bool:
        live = job if isinstance(job, LiveJob) else self._live(job, "admit")
        if live.id in self.running:
            raise PolicyError(
                f"{self._who()} admitted job {job.id} twice: its queue {type(self.queue).__name__} must give each job "
                "once, and pop what was admitted."
            )
        if live.doomed:  # cancelled while it waited in a queue that cannot remove: it leaves with the pop
            self.ghosts -= 1
            self.buried = True
            return True
        if self.seats <= 0:
            return False
        if self.cache is None:
            tokens = live.tokens if live.tokens <= self.budget else self._first(live.tokens)
            need = -(-tokens // self.block)
            if not tokens or need > self.free - self.withheld:
                return False
        else:
            found = self._admit_cached(live)
            if found is None:
                return False
            need, tokens = found
        self.running[live.id] = live
        self.seats -= 1
        self.queued_tokens -= live.tokens
        if live.started is None:
            live.started = self.now
        self._slice(live, need, tokens)
        if live.done < live.tokens:
            self.partial.append(live)
        return True

    def _first(self, left: int) -> int:
        """Tokens of a first chunk; 0: not in this pass (unchunked prompts run whole, alone if they must)."""
        budget = self.budget
        if left <= budget:
            return left
        if self.chunked or (left > self.limit and not self.slices):
            return max(0, budget)
        return 0

    def _admit_cached(self, job: LiveJob) -> tuple[int, int] | None:
        cache = self.cache
        assert cache is not None
        if job.cached_version != cache.version:
            job.hit = cache.match(job.hashes, (job.prompt - 1) // (cache.unit * self.block))
            job.cached_version = cache.version
        hashes = job.hashes[: job.hit]
        done = job.hit * cache.unit * self.block
        tokens = self._first(job.tokens - done)
        need = -(-(done + tokens) // self.block) - job.hit * cache.unit
        pinned = cache.pinned(hashes) * cache.unit
        if not tokens or need + pinned > self.free - self.withheld:
            return None
        cache.lock(hashes)
        self.free -= pinned
        job.own = list(hashes)
        job.done = done
        job.held = job.hit * cache.unit
        if not job.preemptions:
            job.cached = done
        if self.pages is not None:
            self.pages.share(job, hashes)
        return need, tokens

    def _slice(self, job: LiveJob, need: int, tokens: int) -> None:
        if need:
            self.free -= need
            if self.cache is not None:
                self._claim(need)
        job.held += need
        job.done += tokens
        job.sliced = tokens
        self.budget -= tokens
        self.slices.append((job, tokens))
        if self.pages is not None:
            self.pages.cover(job, job.done)

    def _claim(self, need: int) -> None:
        """Blocks were taken: if no blank ones are left, cached content goes."""
        cache = self.cache
        assert cache is not None
        self.blank -= need
        if self.blank < 0:
            units = -(self.blank // cache.unit)
            gone = cache.evict(units)
            self.blank += units * cache.unit
            if self.pages is not None:
                self.pages.forget(gone)

    def _give(self, job: LiveJob, blocks: int) -> None:
        """The `blocks` of a job that leaves; cached ones stay as long as nobody else needs the room."""
        cache = self.cache
        if self.pages is not None:
            self.pages.release(job)
        if cache is None:
            self.free += blocks
            return
        private = blocks - len(job.own) * cache.unit
        back = private + cache.release(job.own) * cache.unit
        job.own = []
        self.free += back
        self.blank += private

    def preempt(self, job: Job, now: float) -> None:
        live = self._live(job, "preempt")
        if live.id in self.moving or self.running.pop(live.id, None) is None:
            raise PolicyError(f"{self._who()} preempted job {job.id}, which is not running, or on its way elsewhere.")
        self.preempted = True
        self.changed.add(self.slot)
        self.seats += 1
        if live in self.resumed:
            self.resumed.remove(live)
        self._vacate(live)
        live.preemptions += 1
        live.version += 1
        live.tokens = live.prompt + live.out
        live.done = live.held = 0
        live.cached_version = -1
        self.queued_tokens += live.tokens
        self.choices.append((live.id, "preempt"))
        self.queue.requeue(live, now)

    def _vacate(self, job: LiveJob) -> None:
        """Give back everything a running job holds, in whatever state it is."""
        lane = job.lane
        if lane is None:
            if job.sliced:
                self._unslice(job)
            self.paused.pop(job.id, None)
            for partial in self.partials:
                if job in partial:
                    partial.remove(job)
            self._give(job, job.held)
            return
        before = lane.growth(1 + self.lookahead) if self.decodes and lane is self.lane else 0
        self.close_span(job)
        self._give(job, -(-lane.leave(job) // self.block))
        if self.decodes and lane is self.lane:
            self.budget += 1
            back = before - lane.growth(1 + self.lookahead)
            self.reserved -= back
            self.free += back
            self.blank += back

    def _unslice(self, job: LiveJob) -> None:
        """A victim whose chunk was already drafted in this pass takes it back."""
        self.slices.remove((job, job.sliced))
        self.budget += job.sliced
        job.sliced = 0

    def pause(self, job: Job, now: float) -> None:
        live = self._live(job, "pause")
        if live.lane is not self.lane or self.decodes:
            raise PolicyError(f"{self._who()} paused job {job.id}: only a decoding job, before decode() is called.")
        self.set_aside(live)
        self.choices.append((live.id, "pause"))

    def set_aside(self, job: LiveJob) -> None:
        """A decoding job keeps its memory and its seat but takes part in no pass."""
        lane = job.lane
        assert lane is not None
        self.close_span(job)
        if job in self.resumed:
            self.resumed.remove(job)
        tokens = lane.leave(job)
        job.done = tokens
        job.held = -(-tokens // self.block)
        job.version += 1
        self.paused[job.id] = job

    def resume(self, job: Job, now: float) -> None:
        live = self._live(job, "resume")
        if self.paused.pop(live.id, None) is None or self.decodes:
            raise PolicyError(f"{self._who()} resumed job {job.id}: only a paused job, before decode() is called.")
        self.rejoin(live, now, emitted=False)
        self.choices.append((live.id, "resume"))

    def rejoin(self, job: LiveJob, now: float, emitted: bool) -> None:
        """A job with its context in memory decodes from the coming pass on."""
        job.version += 1
        self.open_span(job, now, emitted)
        self.lane.join(job, job.done)
        self.resumed.append(job)

    def open_span(self, job: LiveJob, now: float, emitted: bool) -> None:
        job.joined_s = now
        job.joined_pass = self.lane.passes
        job.emitted = emitted

    def close_span(self, job: LiveJob) -> None:
        lane = job.lane
        assert lane is not None
        row = (self.name, lane.index, job.id, job.joined_pass, lane.passes, job.joined_s, job.emitted)
        self.log.spans.append(row)

    def _victim(self, now: float) -> Job:
        candidates = self.preemptible
        if not candidates:
            raise PolicyError(
                f"{self._who()} needs memory that nobody can give: the pass holds all {self.total} blocks."
            )
        victim = self.evictor.victim(candidates, now)
        if getattr(victim, "id", None) not in candidates:
            name = type(self.evictor).__name__
            raise PolicyError(f"policy {name} chose {victim!r} as victim, which is not one of the running jobs.")
        return victim

    @property
    def preemptible(self) -> Mapping[int, LiveJob]:
        """Whose memory may go: not what is in flight in another lane, nor on its way to another server."""
        if len(self.lanes) == 1 and not self.moving:
            return self.running
        return {i: job for i, job in self.running.items() if self._idle(job)}

    def _idle(self, job: LiveJob) -> bool:
        if job.id in self.moving:
            return False
        if job.lane is None:
            return not any(job is flying for plan in self.flights for flying, _ in plan.slices)
        return all(plan.lane != job.lane.index for plan in self.flights)

    def _live(self, job: Job, verb: str) -> LiveJob:
        if isinstance(job, LiveJob):
            return job
        raise PolicyError(
            f"{self._who()} tried to {verb} {job!r}: only jobs of its queue ({type(self.queue).__name__}) or of the "
            "draft can be used."
        )

    def _who(self) -> str:
        return f"policy {type(self.batcher).__name__} on {self.name}"

"""An independent simulator, pass by pass and job by job: what the fast engine must be equal to.

It shares the policy objects with the product and nothing else: no lockstep counter, no repeats, no cuts, no horizons;
every job counts its own tokens and blocks, service is booked per job and pass, the prefix cache is a table that is
scanned. It is slow on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, nextafter
from typing import Any

from airi_sim.core.types import Call, Copies, Copy, Item
from airi_sim.runtime.job import LiveJob
from tests.laws.worlds import Line, Setup


@dataclass(eq=False)
class Held:
    """What a replica knows of a running job."""

    job: Any
    done: int = 0
    blocks: int = 0
    decoding: bool = False
    drafted: int = 0
    units: list[Any] = field(default_factory=list)


class Replica:
    """Implements Draft the obvious way."""

    def __init__(self, setup: Setup, lengths: dict[int, int]) -> None:
        self.setup, self.lengths = setup, lengths
        self.queue, self.batcher, self.evictor = setup.queue(), setup.batcher(), setup.evictor()
        self.total, self.block = setup.blocks, setup.block
        self.held: dict[int, Held] = {}
        self.out: dict[int, int] = {}
        self.stamp: dict[Any, int] = {}
        self.users: dict[Any, int] = {}
        self.clock = self.passes = self.preemptions = 0
        self.end: float | None = None
        self.wake = inf
        self.first: dict[int, float] = {}
        self.finish: dict[int, float] = {}
        self.hits = 0
        self.away: dict[int, int] = {}
        self.returned: list[int] = []
        self.copies = Copies()
        self.choices: list[tuple[int, int, str]] = []

    # memory, counted from scratch each time
    @property
    def free(self) -> int:
        private = sum(h.blocks - len(h.units) for h in self.held.values())
        return self.total - private - sum(1 for n in self.users.values() if n)

    # Draft
    @property
    def decoding(self) -> int:
        return sum(h.decoding for h in self.held.values())

    @property
    def partial(self) -> list[Any]:
        return [h.job for h in self.held.values() if not h.decoding and h.done < h.job.tokens]

    @property
    def preemptible(self) -> dict[int, Any]:
        return self.running

    @property
    def running(self) -> dict[int, Any]:
        return {i: h.job for i, h in self.held.items()}

    paused: dict[int, Any] = {}

    @property
    def seats(self) -> int:
        return self.setup.seats - len(self.held)

    @property
    def available(self) -> int:
        return self.free - self.kept

    @available.setter
    def available(self, value: int) -> None:
        self.kept = self.free - value

    @property
    def sliced(self) -> bool:
        return any(h.drafted for h in self.held.values() if not h.decoding)

    def attained(self, job: Any) -> int:
        return self.out.get(job.id, 0)

    def filled(self, job: Any) -> int:
        return self.held[job.id].done if job.id in self.held else 0

    def decode(self, now: float) -> None:
        self.decoded = True
        for h in list(self.held.values()):
            if h.decoding and h.job.id in self.held and self._grow(h, h.done + 1, now):
                h.drafted = 1
                self.budget -= 1
        self._make_room()

    def _grow(self, h: Held, tokens: int, now: float) -> bool:
        """Blocks for that many tokens; whoever the evictor names makes room. False: it was h itself."""
        need = -(-tokens // self.setup.block) - h.blocks
        while need > self.free:
            victim = self.evictor.victim(self.running, now)
            self.preempt(victim, now)
            if victim is h.job:
                return False
        h.blocks += need
        return True

    def chunk(self, job: Any, now: float) -> bool:
        h = self.held[job.id]
        tokens = min(job.tokens - h.done, self.budget)
        if tokens <= 0 or h.drafted:
            return False
        need = -(-(h.done + tokens) // self.setup.block) - h.blocks
        while need > self.available:
            victim = self.evictor.victim(self.running, now)
            self.preempt(victim, now)
            if victim is job:
                return False
        self._draft(h, need, tokens)
        return True

    def _draft(self, h: Held, need: int, tokens: int) -> None:
        self._make_room(need)
        h.blocks += need
        h.drafted = tokens
        h.done += tokens
        self.budget -= tokens

    def admit(self, job: Any) -> bool:
        units = self._resident(job)
        if self._admit_copy(job, units):
            return True
        done = max(len(units) * self.setup.block, self.away.get(job.id, 0))
        tokens = min(job.tokens - done, self.budget)
        need = -(-(done + tokens) // self.setup.block) - len(units)
        pinned = sum(1 for u in units if not self.users[u])
        if tokens <= 0 or need + pinned > self.available:
            return False
        for u in units:
            self.users[u] += 1
        h = self.held[job.id] = Held(job, done, len(units), units=units)
        self.hits += done
        self._draft(h, need, tokens)
        if job.id in self.away:
            self.returned.append(job.id)
            blocks = max(0, -(-self.away[job.id] // self.setup.block) - len(units))
            self._copied(2, job, blocks, f"swap in {blocks}")
        return True

    def _admit_copy(self, job: Any, units: list[Any]) -> bool:
        """A prompt that is cached to its last token: its last unit is copied and one token computed."""
        block = self.setup.block
        whole = job.prompt == job.tokens == (len(units) + 1) * block <= len(job.prefix) * block
        last = job.prefix[len(units)] if whole else None
        pinned = sum(1 for u in units if not self.users[u])
        if not (self.setup.copy_on_write and last in self.users and job.id not in self.away and self.budget > 0):
            return False
        if 1 + pinned > self.available:
            return False
        for u in units:
            self.users[u] += 1
        self._release_unit(last, used=True)
        h = self.held[job.id] = Held(job, job.prompt - 1, len(units), units=units)
        self._draft(h, 1, 1)
        self._copied(1, job, 1, "copy 1")
        return True

    def _copied(self, way: int, job: Any, blocks: int, choice: str) -> None:
        parts = list(self.copies)
        parts[way] = [*parts[way], Copy(job, blocks)]
        self.copies = Copies(*parts)
        self.moved.append((job.id, choice))

    def _resident(self, job: Any) -> list[Any]:
        found = []
        if self.setup.caching:
            for u in job.prefix[: (job.prompt - 1) // self.setup.block]:
                if u not in self.users:
                    break
                found.append(u)
        return found

    def _make_room(self, extra: int = 0) -> None:
        """Forget the least recently used units until what is held fits."""
        while True:
            private = sum(h.blocks - len(h.units) for h in self.held.values())
            if private + extra + len(self.users) <= self.total:
                return
            idle = [u for u, n in self.users.items() if not n]
            del self.users[min(idle, key=self.stamp.__getitem__)]

    def preempt(self, job: Any, now: float) -> None:
        h = self.held.pop(job.id)
        self.preempted = True
        self.preemptions += 1
        if not self._swap_out(h, now):
            self.moved.append((job.id, "preempt"))
        if h.drafted:
            self.budget += h.drafted
        self._release(h)
        job.preemptions += 1
        job.tokens = job.prompt + self.out.get(job.id, 0)
        self.queue.requeue(job, now)

    def _swap_out(self, h: Held, now: float) -> bool:
        """To the host, if there is room and the evictor wants it."""
        tokens = h.done - (0 if h.decoding else h.drafted)
        blocks = -(-tokens // self.setup.block)
        room = self.setup.host_blocks - sum(-(-n // self.setup.block) for n in self.away.values())
        swaps = getattr(self.evictor, "swaps", lambda *_: True)
        if blocks <= len(h.units) or blocks > room or not swaps(h.job, tokens, now):
            return False
        self.away[h.job.id] = tokens
        self._copied(0, h.job, blocks, f"swap out {blocks}")
        return True

    def _release(self, h: Held) -> None:
        for u in reversed(h.units):
            self._release_unit(u)

    def _release_unit(self, u: Any, used: bool = False) -> None:
        """One user less (or one that only looked): when it was the last, the unit may go, the oldest first."""
        self.users[u] -= not used
        if not self.users[u]:
            self.clock += 1
            self.stamp[u] = self.clock

    # one pass
    def plan(self, now: float) -> float | None:
        self.wake = inf
        if not self.held and not len(self.queue):
            return None
        self.moved: list[tuple[int, str]] = []
        while True:
            self.budget, self.kept, self.closed, self.preempted, self.decoded = self.setup.limit, 0, False, False, False
            for h in self.held.values():
                h.drafted = 0
            self.batcher.form(self, self.queue, now)
            self._make_room()
            if any(h.drafted for h in self.held.values()):
                self._note()
                return now + self._seconds(self.setup.cost)
            if not self.preempted:
                if not self.batcher.greedy:
                    self.wake = self.batcher.stable(self, self.queue, now).until
                if len(self.queue) and self.queue.peek(now) is None:  # all are held back
                    self.wake = min(self.wake, nextafter(self.queue.stable(now, {}).until, inf))
                return None

    def _note(self) -> None:
        """Write down what this pass does: chunks of prompts, evictions, copies."""
        chunks = [(h.job.id, f"chunk {h.drafted}") for h in self.held.values() if h.drafted and not h.decoding]
        self.choices += [(self.passes, *choice) for choice in sorted([*chunks, *self.moved])]
        for job in self.returned:
            del self.away[job]
        self.returned = []

    def _seconds(self, cost: Line) -> float:
        new = context = pairs = 0
        for h in self.held.values():
            if h.decoding and h.drafted:
                new += 1
                context += h.done + 1
            elif h.drafted:
                new += h.drafted
                context += h.done
                pairs += h.drafted * (2 * (h.done - h.drafted) + h.drafted)
        copies, self.copies = self.copies, Copies()
        moving: float = self.setup.copies.seconds(copies) if any(copies) else 0.0
        return moving + cost.base + cost.token * new + cost.context * context + cost.pair * pairs

    def commit(self, now: float) -> None:
        self.passes += 1
        ran = [h for h in self.held.values() if h.drafted]
        account = getattr(self.queue, "account", None)
        for h in ran:
            if h.decoding:
                h.done += 1
                self.out[h.job.id] += 1
                if account:
                    self.queue.serve({getattr(h.job, account): 1}, 1)
        for h in ran:
            if not h.decoding and h.done == h.job.tokens:
                self._first_token(h, now)
        for h in sorted((h for h in ran if h.decoding), key=lambda h: h.job.id):
            if self.out[h.job.id] >= self.lengths[h.job.request]:
                self.finish[h.job.request] = now
                del self.held[h.job.id]
                self._release(h)
                if hasattr(self.queue, "over"):
                    self.queue.over(h.job, self.out[h.job.id], now)

    def _first_token(self, h: Held, now: float) -> None:
        h.decoding = True
        self.first.setdefault(h.job.request, now)
        self.out[h.job.id] = self.out.get(h.job.id, 0) + 1
        if self.setup.caching:
            for u in h.job.prefix[len(h.units) : h.job.prompt // self.setup.block]:
                if u not in self.users:
                    self.users[u] = 1
                    h.units.append(u)


class OneReplica:
    """The view of a control plane that knows nothing."""

    def __init__(self, n: int) -> None:
        self.n, self.block = n, 16

    def column(self, name: str, now: float) -> list[int]:
        return [1] * self.n


def run(setup: Setup) -> tuple[dict[int, tuple[float, float]], list[Replica]]:
    """Times by request, and the replicas."""
    lengths = {item.request.id: item.output_tokens for item in setup.items}
    replicas = [Replica(setup, lengths) for _ in range(setup.replicas)]
    router, view = setup.router(), OneReplica(setup.replicas)
    todo = list(setup.items)
    while True:
        at = min(r.wake if r.end is None else r.end for r in replicas)
        if todo and todo[0].request.arrival < at:
            arrive(todo.pop(0), router, view, replicas)
        elif at == inf:
            break
        else:
            for r in replicas:
                if r.end == at:
                    r.commit(at)
                    r.end = r.plan(at)
                elif r.end is None and r.wake == at:
                    r.end = r.plan(at)
    first = {i: t for r in replicas for i, t in r.first.items()}
    finish = {i: t for r in replicas for i, t in r.finish.items()}
    return {i: (first[i], finish[i]) for i in finish}, replicas


def arrive(item: Item, router: Any, view: OneReplica, replicas: list[Replica]) -> None:
    request = item.request
    job = LiveJob(request, Call("generate", request.tokens, prefix=request.prefix), 0, request.arrival)
    replica = replicas[router.route(job, view, request.arrival)]
    replica.queue.push(job, request.arrival)
    if replica.end is None:
        replica.end = replica.plan(request.arrival)

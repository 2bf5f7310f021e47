"""Small random worlds: a few dozen requests, a linear cost model, one of four regimes. Each is a value that can be
run again, cut down, and printed."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from airi_sim.core.types import Affine, Item, Plan, Request
from airi_sim.policies.batchers import ChunkedPrefill, PrefillFirst, Static
from airi_sim.policies.evictors import LastIn, Lru
from airi_sim.policies.preemption import Preemptive
from airi_sim.policies.queues import Fcfs, Sjf, Vtc

BLOCK = 16
NAMES = "abcd"
"""Of pools, and of the models they serve."""
REGIMES: dict[str, tuple[float, int, int]] = {
    "idle": (1.0, 64, 10_000),
    "seats full": (30.0, 6, 10_000),
    "memory short": (30.0, 40, 30),
    "overload": (200.0, 16, 40),
}
"""Requests per second, seats and KV blocks a replica. In the last two memory stops the head of the queue although
seats are free, which is where a lie of a policy about itself shows, and jobs lose their memory and start again."""
BATCHERS: tuple[Callable[[], Any], ...] = (ChunkedPrefill, Preemptive, PrefillFirst, Static)
EVICTORS: tuple[Callable[[], Any], ...] = (LastIn, Lru)
QUEUES: tuple[Callable[[], Any], ...] = (Fcfs, Fcfs, Sjf, Vtc)
SLOWEST = 1000.0
"""How slow the hardware may be: policies with time constants of minutes must meet them in a small world too."""
LONGEST, OUTPUT, TENANTS, GROUPS = 300, 160, 3, 3


@dataclass(frozen=True)
class Line:
    """base + a token + b context + c prefill pair: as simple as a pass can be and still grow with its context."""

    scale: float = 1.0

    def affine(self, plan: Plan) -> Affine:
        decodes = plan.sequences
        context = 1.3e-6 * (plan.context + decodes + plan.prefill_context)
        first = 0.005 + 1.1e-4 * (decodes + plan.prefill_tokens) + context + 1e-8 * plan.prefill_attention
        return Affine(self.scale * first, self.scale * 1.3e-6 * decodes)


@dataclass(frozen=True)
class World:
    """Requests (with true output lengths), what serves them, and what goes wrong meanwhile.

    `crashes`: (replica, down, up) in seconds; `cancels`: (request, seconds). The makers are those of the policies that
    are not under test; each of the `pools` serves a model. Where models are placed, `room` of them fit in memory, and
    copies of `host` in that of the host.
    """

    seed: int
    regime: str
    items: tuple[Item, ...]
    seats: int
    blocks: int
    limit: int
    replicas: int
    scale: float = 1.0
    period: float = 0.0
    caching: bool = False
    queue: Callable[[], Any] = Fcfs
    batcher: Callable[[], Any] = ChunkedPrefill
    evictor: Callable[[], Any] = LastIn
    pools: int = 1
    room: float = 0.0
    host: float = 0.0
    crashes: tuple[tuple[int, float, float], ...] = ()
    cancels: tuple[tuple[int, float], ...] = ()

    def __str__(self) -> str:
        policies = ", ".join([maker.__name__ for maker in (self.queue, self.batcher, self.evictor)])
        lines = [
            f"world {self.seed} ({self.regime}): {self.pools * self.replicas} replicas of {self.seats} seats and "
            f"{self.blocks} blocks of {BLOCK} tokens, {self.limit} tokens a pass{', prefix cache' * self.caching}; "
            f"around it {policies}",
            f"{'request':>9} {'arrival_s':>10} {'prompt':>7} {'output':>7} {'tenant':>7} {'priority':>9}",
        ]
        lines += [_line(item) for item in self.items]
        lines += [f"  replica {i} is down from {down:.3f} to {up:.3f} s" for i, down, up in self.crashes]
        known = {item.request.id for item in self.items}
        lines += [f"  request {i} is cancelled at {at:.3f} s" for i, at in self.cancels if i in known]
        return "\n".join(lines)


def _line(item: Item) -> str:
    r = item.request
    return f"{r.id:>9} {r.arrival:>10.3f} {r.tokens:>7} {item.output_tokens:>7} {r.tenant:>7} {r.priority:>9}"


def draw(kind: str, seed: int, requests: int = 30) -> World:
    """World number `seed` for a policy of that kind; the regimes take turns."""
    pick = random.Random(seed)
    regime = list(REGIMES)[seed % len(REGIMES)]
    rate, seats, blocks = REGIMES[regime]
    scale, caching = pick.choice([1.0, SLOWEST ** pick.random()]), pick.random() < 0.3
    world = World(
        seed, regime, _items(pick, requests, rate / scale, scale, caching), seats, blocks,
        limit=pick.choice([64, 200, 512]), replicas=pick.choice([1, 1, 2]), scale=scale, caching=caching,
        batcher=pick.choice(BATCHERS), evictor=pick.choice(EVICTORS),
    )  # fmt: skip
    return SPECIAL[kind](world, pick) if kind in SPECIAL else world


def _items(pick: random.Random, n: int, rate: float, scale: float, alike: bool) -> tuple[Item, ...]:
    """Exponential gaps; if `alike`, prompts of a group begin with the same blocks."""
    items, at = [], 0.0
    for i in range(n):
        at += pick.expovariate(rate)
        tokens = pick.randint(1, pick.choice([BLOCK, LONGEST]))
        prefix = _prefix(pick, i, tokens // BLOCK) if alike else ()
        budget = pick.choice([0, 0, pick.randint(1, OUTPUT)])
        request = Request(
            i, at, tokens, budget, f"t{pick.randrange(TENANTS)}", f"s{pick.randrange(8)}", priority=pick.randrange(3),
            deadline=at + scale * pick.uniform(0.2, 20.0), prefix=prefix,
        )  # fmt: skip
        items.append(Item(request, pick.randint(1, OUTPUT)))
    return tuple(items)


def _prefix(pick: random.Random, i: int, blocks: int) -> tuple[int, ...]:
    group, shared = pick.randrange(GROUPS), pick.randint(0, blocks)
    return tuple([group * 10_000 + k if k < shared else 10**9 + i * 10_000 + k for k in range(blocks)])


def _many_replicas(world: World, pick: random.Random) -> World:
    """For routers and admission: replicas that crash, a view that may be stale, orders that may move."""
    period = pick.choice([0.0, 0.0, 0.2 * world.scale])
    world = replace(world, replicas=pick.choice([2, 3, 5]), period=period, queue=pick.choice(QUEUES))
    return _with_crashes(world, pick) if pick.random() < 0.5 else world


def _with_crashes(world: World, pick: random.Random) -> World:
    last = world.items[-1].request.arrival
    first = [(pick.randrange(world.replicas), pick.uniform(0, last)) for _ in range(3)]
    return replace(world, crashes=tuple([(i, at, at + pick.uniform(0.1, 0.5) * last) for i, at in first]))


def _contended(world: World, pick: random.Random) -> World:
    """For queues: passes so large that memory, not the budget, stops the head; in some worlds every fourth request is
    given up."""
    world = replace(world, limit=pick.choice([64, 512, 512]), batcher=pick.choice(BATCHERS[:3]))
    if pick.random() < 0.7:
        return world
    some = [item.request for item in world.items[::4]]
    return replace(world, cancels=tuple([(r.id, r.arrival + pick.uniform(0, 2) * world.scale) for r in some]))


def _remembering(world: World, pick: random.Random) -> World:
    """For caches: prompts that begin alike, and memory for a few of them."""
    rate = REGIMES[world.regime][0] / world.scale
    items = _items(pick, 2 * len(world.items), rate, world.scale, alike=True)
    return replace(world, items=items, caching=True, blocks=pick.choice([30, 40, 80]))


def _two_pools(world: World, pick: random.Random) -> World:
    return replace(_many_replicas(world, pick), pools=2)


def _crowded(world: World, pick: random.Random) -> World:
    """For placements: four models on a device with room for some of them, requests for each."""
    items = [Item(replace(item.request, model=pick.choice("aaabbccd")), item.output_tokens) for item in world.items]
    world = replace(world, items=tuple(items), replicas=1, pools=len(NAMES), host=pick.choice([0.0, 2.0]))
    world = replace(world, room=pick.choice([1.0, 2.0, 3.0, 4.0]))
    return _with_crashes(world, pick) if pick.random() < 0.3 else world


SPECIAL: Mapping[str, Callable[[World, random.Random], World]] = {
    "router": _many_replicas,
    "admission": _many_replicas,
    "fault": _with_crashes,
    "model_router": _two_pools,
    "queue": _contended,
    "cache": _remembering,
    "placement": _crowded,
}

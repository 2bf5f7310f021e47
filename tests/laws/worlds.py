"""Small worlds for the law tests: a linear cost model, jobs with known lengths, runs with every choice open."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any

from airi_sim.core.log import Log
from airi_sim.core.types import FOREVER, Affine, Call, Copies, Item, Plan, Request
from airi_sim.engine.copies import CopyingExecutor
from airi_sim.engine.driver import Driver
from airi_sim.engine.executors import CostExecutor
from airi_sim.policies.admission import Always
from airi_sim.policies.batchers import ChunkedPrefill
from airi_sim.policies.evictors import LastIn
from airi_sim.policies.faults import Retry
from airi_sim.policies.models import Fixed
from airi_sim.policies.queues import Fcfs
from airi_sim.policies.routers import RoundRobin
from airi_sim.runtime.pool import Pool
from airi_sim.runtime.runtime import Runtime
from airi_sim.runtime.swap import CopyingServer
from airi_sim.runtime.token_server import TokenServer
from airi_sim.runtime.view import Board


@dataclass(frozen=True)
class Line:
    """base + a token + b context + c prefill pair: as simple as a pass cost can be and still grow with context."""

    base: float = 0.005
    token: float = 1.1e-4
    context: float = 1.3e-6
    pair: float = 1e-8

    def affine(self, plan: Plan) -> Affine:
        decodes = plan.sequences
        first = (
            self.base
            + self.token * (decodes + plan.prefill_tokens)
            + self.context * (plan.context + decodes + plan.prefill_context)
            + self.pair * plan.prefill_attention
        )
        return Affine(first, self.context * decodes)


@dataclass(frozen=True)
class CopyLine:
    """So much a pass with copies, so much a block that goes out, is copied, or comes back: all different, so that none
    can be taken for another."""

    base: float = 0.002
    each: tuple[float, float, float] = (1.1e-4, 3e-6, 0.9e-4)

    def seconds(self, copies: Copies) -> float:
        pairs = zip(self.each, copies, strict=True)
        return self.base + sum(each * copy.blocks for each, part in pairs for copy in part)


class Lengths:
    """The true output lengths, by request."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.by_request = {item.request.id: item.output_tokens for item in items}

    def output_tokens(self, job: Any) -> int:
        return min(self.by_request[job.request], job.budget)

    def prompt(self, job: Any, vocabulary: int) -> list[int]:
        raise NotImplementedError("nobody reads prompts here")


def chat(request: Request) -> Any:
    yield Call("generate", request.tokens, request.budget, request.model, request.prefix)


def workload(
    seed: int, n: int, rate: float, longest: int, output: int, tenants: int = 3, groups: int = 0
) -> list[Item]:
    """n requests with exponential gaps; with `groups`, prompts of a group begin alike (hash blocks of 16)."""
    draw, more = random.Random(seed), random.Random(-1 - seed)
    items, at = [], 0.0
    for i in range(n):
        at += draw.expovariate(rate)
        tokens = draw.randint(1, longest)
        group = draw.randrange(groups) if groups else -1
        shared = draw.randint(0, tokens // 16) if groups else 0
        prefix = tuple([group * 10_000 + k for k in range(shared)]) + tuple(
            [10**9 + i * 10_000 + k for k in range(tokens // 16 - shared)]
        )
        request = Request(
            i, at, tokens, tenant=f"t{draw.randrange(tenants)}", priority=draw.randrange(3),
            prefix=prefix if groups else (), session=f"s{more.randrange(8)}",
            deadline=at + more.choice([inf, more.uniform(0.1, 5.0)]),
        )  # fmt: skip
        items.append(Item(request, draw.randint(1, output)))
    return items


@dataclass
class Setup:
    """One small world; `run` makes it anew and runs it."""

    items: list[Item]
    queue: Callable[[], Any] = Fcfs
    batcher: Callable[[], Any] = ChunkedPrefill
    evictor: Callable[[], Any] = LastIn
    router: Callable[[], Any] = RoundRobin
    replicas: int = 1
    blocks: int = 10_000
    block: int = 16
    seats: int = 64
    limit: int = 512
    period: float = 0.0
    caching: bool = False
    depth: int = 1
    cost: Any = field(default_factory=Line)
    programs: dict[str, Any] = field(default_factory=lambda: {"chat": chat})
    chunked: bool = True
    host_blocks: int = 0
    copy_on_write: bool = False
    copies: Any = field(default_factory=CopyLine)

    @property
    def copying(self) -> bool:
        return bool(self.host_blocks or self.copy_on_write)

    def build(self, fast: bool = True) -> tuple[Runtime, Driver, Log]:
        log = Log()
        kind: Any = TokenServer
        if self.copying:
            kind = partial(CopyingServer, host_blocks=self.host_blocks, copy_on_write=self.copy_on_write)
        servers = [
            kind(
                f"r{i}", i, self.queue, self.batcher(), self.evictor(), log, blocks=self.blocks, block=self.block,
                seats=self.seats, limit=self.limit, fast=fast, caching=self.caching, hash_block=16, depth=self.depth,
                chunked=self.chunked,
            )
            for i in range(self.replicas)
        ]  # fmt: skip
        pool = Pool("default", "generate", "", servers, self.router(), Board(servers, self.period, FOREVER))
        runtime = Runtime([pool], log, admission=Always(), model_router=Fixed(), faults=Retry(), programs=self.programs)
        script = Lengths(self.items)
        return runtime, Driver(runtime, [self._executor(script) for _ in servers]), log

    def _executor(self, script: Lengths) -> CostExecutor:
        if self.copying:
            return CopyingExecutor(self.cost, script, self.copies)
        return CostExecutor(self.cost, script, self.depth)

    def run(self, fast: bool = True) -> Ran:
        runtime, driver, log = self.build(fast)
        driver.run(iter([Item(copy(item.request), item.output_tokens) for item in self.items]))
        return Ran(runtime, log)


def copy(request: Request) -> Request:
    """Runs must not share requests: with a concurrency limit the arrival is rewritten."""
    return Request(
        request.id, request.arrival, request.tokens, request.budget, request.tenant, request.session, request.model,
        request.program, request.priority, request.deadline, request.slo, request.prefix,
    )  # fmt: skip


@dataclass
class Ran:
    """What came out."""

    runtime: Runtime
    log: Log

    @property
    def times(self) -> dict[int, tuple[Any, Any]]:
        """First token and finish by request."""
        return {row[0]: (row[6], row[7]) for row in self.log.requests}

    @property
    def preemptions(self) -> int:
        return sum(row[13] for row in self.log.jobs)

    @property
    def passes(self) -> int:
        return sum(server.passes for server in self.runtime.servers)

    def apart(self, other: dict[int, tuple[Any, Any]]) -> float:
        """The largest difference of a time, in seconds."""
        mine = self.times
        assert mine.keys() == other.keys()
        return max(abs(a - b) for i in mine for a, b in zip(mine[i], other[i], strict=True))

"""Small worlds of the engine: real servers, queues, routers, runtime and driver, with service times one can choose.

A service second is a million tokens (`TICK`), so that continuous sizes fit into whole tokens: a SlotServer with
ServiceCost(per_token=TICK) works exactly as long as the job is large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Protocol

import numpy as np

from airi_sim.core.log import Log
from airi_sim.core.protocols import CostModel
from airi_sim.core.types import Affine, Call, Item, Plan, Program, Request
from airi_sim.engine.driver import Driver
from airi_sim.engine.executors import CostExecutor, ServiceExecutor
from airi_sim.hardware.service import ServiceCost
from airi_sim.policies.admission import Always
from airi_sim.policies.batchers import ChunkedPrefill, Static
from airi_sim.policies.evictors import LastIn
from airi_sim.policies.faults import Retry
from airi_sim.policies.models import Fixed
from airi_sim.policies.queues import Fcfs
from airi_sim.policies.routers import RoundRobin
from airi_sim.runtime.pool import Pool
from airi_sim.runtime.runtime import Runtime
from airi_sim.runtime.service import BatchServer, SlotServer
from airi_sim.runtime.token_server import TokenServer
from airi_sim.runtime.view import Board
from airi_sim.workbench.oracles import reveal_truth
from airi_sim.workload.script import LengthScript

TICK = 1e-6
PLENTY = 1 << 40
"""Seats, tokens or blocks that never run out."""


@dataclass(frozen=True)
class PassCost:
    """A pass of n jobs takes base + each * n seconds, whatever their contexts and prompts."""

    base: float
    each: float = 0.0

    def affine(self, plan: Plan) -> Affine:
        """See core.protocols.CostModel."""
        return Affine(self.base + self.each * (plan.sequences + len(plan.slices)))


def by_size() -> CostModel:
    """The cost of a service whose jobs last as long as they are large."""
    return ServiceCost(per_token=TICK)


class Kind(Protocol):
    """A kind of server, and the executor that runs its plans."""

    def server(self, name: str, index: int, log: Log) -> Any: ...
    def executor(self, script: LengthScript) -> Any: ...


@dataclass(frozen=True)
class Slots:
    """SlotServers: `depth` jobs at a time, each by itself."""

    depth: int = 1
    queue: Callable[[], Any] = Fcfs
    cost: Callable[[], CostModel] = by_size

    def server(self, name: str, index: int, log: Log) -> SlotServer:
        return SlotServer(name, index, self.queue, log, depth=self.depth)

    def executor(self, script: LengthScript) -> ServiceExecutor:
        return ServiceExecutor(self.cost())


@dataclass(frozen=True)
class Batches:
    """BatchServers: one batch at a time, taken by a batcher."""

    cost: Callable[[], CostModel]
    seats: int = PLENTY
    batcher: Callable[[], Any] = Static
    queue: Callable[[], Any] = Fcfs

    def server(self, name: str, index: int, log: Log) -> BatchServer:
        return BatchServer(name, index, self.queue, self.batcher(), log, seats=self.seats, limit=PLENTY)

    def executor(self, script: LengthScript) -> ServiceExecutor:
        return ServiceExecutor(self.cost())


@dataclass(frozen=True)
class Tokens:
    """TokenServers: continuous batching, a job of k output tokens takes part in k passes (its prompt is one token)."""

    cost: CostModel
    seats: int = PLENTY
    queue: Callable[[], Any] = Fcfs
    batcher: Callable[[], Any] = ChunkedPrefill
    blocks: int = PLENTY
    block: int = 16
    caching: bool = False
    fast: bool = True

    def server(self, name: str, index: int, log: Log) -> TokenServer:
        return TokenServer(
            name, index, self.queue, self.batcher(), LastIn(), log, blocks=self.blocks, block=self.block,
            seats=self.seats, limit=PLENTY, caching=self.caching, hash_block=self.block, fast=self.fast,
        )  # fmt: skip

    def executor(self, script: LengthScript) -> CostExecutor:
        return CostExecutor(self.cost, script)


@dataclass(frozen=True)
class Station:
    """A pool: `replicas` servers of one kind behind a router; calls of kind `name` come here."""

    kind: Kind
    name: str = "serve"
    replicas: int = 1
    router: Callable[[], Any] = RoundRobin


@dataclass(frozen=True)
class Customers:
    """Who comes: times of arrival and sizes (in tokens) of each; `outputs` are true output lengths."""

    arrivals: np.ndarray
    sizes: np.ndarray
    outputs: np.ndarray | None = None
    tenants: Sequence[str] | None = None
    priorities: np.ndarray | None = None
    items: np.ndarray | None = None
    """The one prefix id of each prompt."""

    def __iter__(self) -> Iterator[Item]:
        n = len(self.arrivals)
        outputs = [1] * n if self.outputs is None else self.outputs.tolist()
        priorities = [0] * n if self.priorities is None else self.priorities.tolist()
        prefixes = [()] * n if self.items is None else [(int(item),) for item in self.items]
        tenants = self.tenants or ["default"] * n
        rows = zip(self.arrivals.tolist(), self.sizes.tolist(), outputs, tenants, priorities, prefixes, strict=True)
        for i, (at, tokens, output, tenant, priority, prefix) in enumerate(rows):
            yield Item(Request(i, at, tokens, 0, tenant, "", "", "do", priority, prefix=prefix), output)


def ticks(seconds: np.ndarray) -> np.ndarray:
    """Sizes in tokens, at least one."""
    return np.maximum(1, np.rint(seconds / TICK)).astype(np.int64)


def poisson(rng: np.random.Generator, rate: float, n: int) -> np.ndarray:
    """Times of n arrivals."""
    return np.cumsum(rng.exponential(1 / rate, n))


def serve(request: Request) -> Program:
    """One call of a service."""
    yield Call("serve", request.tokens)


def generate(request: Request) -> Program:
    """One call of a model."""
    yield Call("generate", request.tokens, prefix=request.prefix)


@dataclass
class Trace:
    """What the log of a run says, as columns; requests and jobs in order of their ids."""

    log: Log
    end_s: float
    runtime: Runtime
    driver: Driver
    _jobs: dict[str, np.ndarray] = field(default_factory=dict)

    def request(self, column: int) -> np.ndarray:
        """A column of the requests table."""
        return np.array([row[column] for row in sorted(self.log.requests)], dtype=float)

    @property
    def arrived(self) -> np.ndarray:
        return self.request(5)

    @property
    def times(self) -> np.ndarray:
        """The sojourn of each request."""
        return self.request(7) - self.request(5)

    def jobs(self, kind: str = "") -> np.ndarray:
        """Rows (request, submitted, started, finished) of the finished jobs of a kind, in order of their ids."""
        rows = sorted([row for row in self.log.jobs if row[14] == "finished" and (not kind or row[2] == kind)])
        return np.array([(row[1], row[6], row[8 - 1], row[9]) for row in rows], dtype=float)

    @property
    def waits(self) -> np.ndarray:
        """From submission to start, by job."""
        jobs = self.jobs()
        return jobs[:, 2] - jobs[:, 1]


def run(
    stations: Sequence[Station],
    customers: Customers,
    program: Callable[[Request], Program] = serve,
    *,
    admission: Any = None,
    faults: Any = None,
    concurrency: int | None = None,
    until: float = inf,
    prepare: Callable[[Driver], None] | None = None,
) -> Trace:
    """Build a world, run it to its end (or `until`), and return what was logged. `prepare` may put events of its own on
    the calendar before the first arrival."""
    log = Log()
    script = LengthScript()
    pools: list[Pool] = []
    executors: list[Any] = []
    for station in stations:
        first = len(executors)
        servers = [station.kind.server(f"{station.name}-{i}", first + i, log) for i in range(station.replicas)]
        board = Board(servers, 0.0, 0)
        pools.append(Pool(station.name, station.name, "", servers, station.router(), board))
        executors += [station.kind.executor(script) for _ in servers]
    runtime = Runtime(
        pools, log, admission=admission or Always(), model_router=Fixed(), faults=faults or Retry(),
        programs={"do": program}, concurrency=concurrency,
    )  # fmt: skip
    runtime.forget = script.forget
    reveal_truth(runtime, script)
    driver = Driver(runtime, executors, learn=script.learn)
    if prepare is not None:
        prepare(driver)
    return Trace(log, driver.run(iter(customers), until), runtime, driver)

"""Runs a small world and audits it from outside: what every request, token and KV block came to."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from airi_sim.core.errors import BadInput
from airi_sim.core.log import Log
from airi_sim.core.types import Call, Ended, Item, Plan, Program, Request
from airi_sim.engine.driver import Driver
from airi_sim.engine.executors import CostExecutor, ServiceExecutor
from airi_sim.policies.admission import Always
from airi_sim.policies.faults import Retry
from airi_sim.policies.models import Fixed
from airi_sim.policies.routers import RoundRobin
from airi_sim.runtime.job import LiveJob
from airi_sim.runtime.placement import PlacingRuntime
from airi_sim.runtime.places import Loader
from airi_sim.runtime.pool import Pool
from airi_sim.runtime.runtime import Runtime
from airi_sim.runtime.token_server import TokenServer
from airi_sim.runtime.view import Board
from airi_sim.workbench.laws.placing import Loads, on_one_device
from airi_sim.workbench.laws.worlds import BLOCK, NAMES, Line, World

STALLED = 1000
"""Passes in a row without a token: far more than all prompts of a small world take."""
TICKS = 10_000
MEMORY = 1 << 20
PLACED = {"router": RoundRobin, "admission": Always, "fault": Retry, "model_router": Fixed}


class Breach(Exception):
    """A law was broken: its name, and what happened in one sentence."""

    def __init__(self, law: str, text: str) -> None:
        super().__init__(text)
        self.law, self.text = law, text


class Choice(NamedTuple):
    """One decision as it counts for comparisons: no times."""

    where: str
    passes: int
    job: int
    choice: str


class Ran(NamedTuple):
    """What came out of a world: decisions by place, and the times of each request."""

    choices: dict[str, list[Choice]]
    times: dict[int, tuple[float | None, float | None]]
    preemptions: int
    started: dict[int, tuple[float, float | None]]


class Lengths:
    """The true output lengths, for executors only."""

    def __init__(self, world: World) -> None:
        self.by_request = {item.request.id: item.output_tokens for item in world.items}

    def output_tokens(self, job: Any) -> int:
        return int(min(self.by_request[job.request], job.budget))

    def prompt(self, job: Any, vocabulary: int) -> list[int]:
        return [0] * job.prompt


class Watched(Runtime):
    """A runtime that audits every plan and every commit."""

    def __init__(self, *arguments: Any, **policies: Any) -> None:
        super().__init__(*arguments, **policies)
        self.ticks = 0
        self.stalled: dict[int, int] = {}

    def finish(self, plan: Plan, outcome: Ended, now: float) -> None:
        server = self.servers[plan.server]
        if plan.kind == "pass":
            _audit_plan(server, plan)
        super().finish(plan, outcome, now)
        moved = plan.sequences or plan.ends or outcome[1]
        self.stalled[plan.server] = 0 if moved else self.stalled.get(plan.server, 0) + 1
        if self.stalled[plan.server] > STALLED:
            raise Breach("progress", f"{server.name} ran {STALLED} passes in a row without a single token coming out")
        if plan.kind == "pass":
            _audit_memory(server)

    def tick(self, now: float) -> bool:
        self.ticks += 1
        if self.ticks > TICKS:
            raise Breach("progress", f"jobs were told to come back later {TICKS} times and still nothing is over")
        return super().tick(now)


class WatchedPlaces(Watched, PlacingRuntime):
    """The same where models come and go."""


def _audit_plan(server: TokenServer, plan: Plan) -> None:
    tokens = plan.sequences + plan.prefill_tokens
    if tokens > server.limit:
        raise Breach("bounds", f"a pass of {tokens} tokens was drafted, over the budget of {server.limit}")
    if len(server.running) > server.max_seats:
        raise Breach("bounds", f"{len(server.running)} jobs run on {server.max_seats} seats")


def _audit_memory(server: TokenServer) -> None:
    if server.cache is not None or server.flights:
        return
    held = sum([server.held(job) for job in server.running.values()])
    if held + server.free != server.total:
        raise Breach("conservation", f"{held} KV blocks held and {server.free} free do not make {server.total}")


def chat(request: Request) -> Program:
    """One call a request."""
    yield Call("generate", request.tokens, request.budget, request.model, request.prefix)


def run(world: World, parts: dict[str, Callable[[], Any]], fast: bool = True) -> Ran:
    """Run a world with the policies of `parts` (by kind) in it; raises Breach for what the run itself gives away."""
    log = Log()
    runtime = _runtime(world, {**PLACED, **_server_parts(world), **parts}, log, fast)
    script = Lengths(world)
    driver = Driver(runtime, [_executor(world, server, script) for server in runtime.servers])
    _plan_accidents(world, runtime, driver)
    try:
        driver.run(iter([Item(_copy(item.request), item.output_tokens) for item in world.items]))
    except BadInput as error:
        raise Breach(_law_of(str(error)), str(error).rstrip(".")) from error
    except (Breach, KeyboardInterrupt):
        raise
    except Exception as error:
        raise Breach("protocol", f"the run ended in {type(error).__name__}: {error} ({line_of(error)})") from error
    _audit_end(world, runtime, log, parts)
    return _ran(log)


def _executor(world: World, server: Any, script: Lengths) -> Any:
    if isinstance(server, Loader):
        return ServiceExecutor(Loads(world.scale))
    return CostExecutor(Line(world.scale), script)


def line_of(error: Exception) -> str:
    """Where an error came from: file and line."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(last.filename).name}, line {last.lineno}"


def _server_parts(world: World) -> dict[str, Callable[[], Any]]:
    return {"queue": world.queue, "batcher": world.batcher, "evictor": world.evictor}


def _runtime(world: World, make: dict[str, Callable[[], Any]], log: Log, fast: bool) -> Watched:
    pools: list[Pool] = []
    for p in range(world.pools):
        servers = [
            TokenServer(
                f"{NAMES[p]}/{i}", p * world.replicas + i, make["queue"], make["batcher"](), make["evictor"](), log,
                blocks=world.blocks, block=BLOCK, seats=world.seats, limit=world.limit, caching=world.caching,
                hash_block=BLOCK, fast=fast, make_cache=make.get("cache"),
            )
            for i in range(world.replicas)
        ]  # fmt: skip
        board = Board(servers, world.period, MEMORY)
        board.hash_block = BLOCK
        pools.append(Pool(NAMES[p], "generate", NAMES[p], servers, make["router"](), board))
    parts: dict[str, Any] = {"admission": make["admission"](), "model_router": make["model_router"]()}
    parts |= {"faults": make["fault"](), "programs": {"chat": chat}}
    if "placement" not in make:
        return Watched(pools, log, **parts)
    pools, more = on_one_device(pools, world.room, world.host, log)
    return WatchedPlaces(pools, log, placement=make["placement"](), **more, **parts)


def _plan_accidents(world: World, runtime: Runtime, driver: Driver) -> None:
    for replica, down, up in world.crashes:
        driver.at(down, lambda i=replica, at=down: runtime.server_down(i, at))  # type: ignore[misc]
        driver.at(up, lambda i=replica, at=up: runtime.server_up(i, at))  # type: ignore[misc]
    for request, at in world.cancels:
        driver.at(at, lambda i=request, at=at: runtime.cancel(i, at))  # type: ignore[misc]


def _copy(request: Request) -> Request:
    """Runs must not share requests."""
    return Request(
        request.id, request.arrival, request.tokens, request.budget, request.tenant, request.session, request.model,
        request.program, request.priority, request.deadline, request.slo, request.prefix,
    )  # fmt: skip


LAWS_BY_PHRASE = {
    "nothing moves any more": "progress",
    "makes no progress": "progress",
    "preempts in circles": "progress",
    "must pop each job it admits once": "conservation",
    "more than there are": "bounds",
    "over the budget": "bounds",
    "unload something first": "bounds",
}
"""The runtime's own audits speak in sentences; what they say belongs to these laws, anything else to `bounds`."""


def _law_of(text: str) -> str:
    return next((law for phrase, law in LAWS_BY_PHRASE.items() if phrase in text), "bounds")


def _audit_end(world: World, runtime: Runtime, log: Log, parts: dict[str, Any]) -> None:
    """Every request ended exactly once, in a way that something explains, and nothing is left anywhere."""
    ended = sorted([row[0] for row in log.requests])
    if ended != sorted([item.request.id for item in world.items]):
        raise Breach("conservation", f"{len(world.items)} requests came and {len(ended)} ends were logged")
    for row in log.requests:
        _audit_request(world, row, parts)
    for server in runtime.servers:
        if isinstance(server, TokenServer):
            _audit_empty(server)


def _audit_request(world: World, row: tuple[Any, ...], parts: dict[str, Any]) -> None:
    request, tokens, status, reason = row[0], row[9], row[11], row[12]
    item = next(item for item in world.items if item.request.id == request)
    explained = {
        "finished": True,
        "cancelled": any(request == i for i, _ in world.cancels),
        "failed": bool(world.crashes),
        "rejected": "admission" in parts or "placement" in parts,
    }
    if not explained.get(status, False):
        raise Breach("conservation", f"request {request} ended as {status} ({reason}) and nothing explains it")
    due = min(item.output_tokens, item.request.budget or item.output_tokens)
    if status == "finished" and tokens != due:
        raise Breach("conservation", f"request {request} got {tokens} output tokens instead of {due}")


def _audit_empty(server: TokenServer) -> None:
    jobs: list[LiveJob] = server.stuck()
    if jobs or server.running or server.flights or server.lane.count or server.partial or server.paused:
        raise Breach("conservation", f"{server.name} still holds jobs when all requests are over")
    if server.free != server.total:
        raise Breach("conservation", f"{server.name} leaks {server.total - server.free} KV blocks")
    if server.queued_tokens or server.inflight_tokens:
        raise Breach("conservation", f"{server.name} still counts {server.queued_tokens} tokens as waiting")


def _ran(log: Log) -> Ran:
    choices: dict[str, list[Choice]] = {}
    for _, where, _, job, choice, passes in log.decisions:
        choices.setdefault(where, []).append(Choice(where, passes, job, choice))
    times = {row[0]: (row[6], row[7]) for row in log.requests}
    started = {row[0]: (row[6], row[7]) for row in log.jobs}
    return Ran(choices, times, sum([row[13] for row in log.jobs]), started)


def first_difference(a: Ran, b: Ran) -> tuple[Choice | None, Choice | None] | None:
    """The earliest decision (by place, then in order) that is not the same in two runs."""
    for where in sorted({*a.choices, *b.choices}):
        one, other = a.choices.get(where, []), b.choices.get(where, [])
        if one != other:
            same = next((i for i, (x, y) in enumerate(zip(one, other, strict=False)) if x != y), None)
            at = min(len(one), len(other)) if same is None else same
            return _at(one, at), _at(other, at)
    return None


def _at(choices: list[Choice], i: int) -> Choice | None:
    return choices[i] if i < len(choices) else None

"""The gateway: the way of a request through its program, and of each job to a server (choose, admit, route, queue)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from heapq import heappush
from math import inf
from typing import Any

from airi_sim.core.errors import PolicyError, unknown
from airi_sim.core.log import Log
from airi_sim.core.protocols import Admission, FaultPolicy, ModelRouter
from airi_sim.core.types import Call, Job, Program, Request, Verdict
from airi_sim.runtime.flow import Flow, Single
from airi_sim.runtime.handover import Handover
from airi_sim.runtime.hooks import tell_over
from airi_sim.runtime.job import LiveJob
from airi_sim.runtime.pool import Pool

GATEWAY = "gateway"


class Gateway:
    """The half of the runtime that no driver calls. `concurrency`: at most so many requests in flight, later ones wait
    outside. `request_s`: seconds that the API path of the engine takes before a call of a model reaches a router."""

    def __init__(
        self,
        pools: Sequence[Pool],
        log: Log,
        *,
        admission: Admission,
        model_router: ModelRouter,
        faults: FaultPolicy,
        programs: Mapping[str, Callable[[Request], Program | Call]],
        concurrency: int | None = None,
        request_s: float = 0.0,
    ) -> None:
        self.pools = {pool.name: pool for pool in pools}
        self.log = log
        self.admission, self.model_router, self.faults, self.programs = admission, model_router, faults, programs
        self.concurrency, self.request_s = concurrency, request_s
        self.servers: list[Any] = [server for pool in pools for server in pool.servers]
        self.home = [pool for pool in pools for _ in pool.servers]
        self.stale = any(pool.board.period for pool in pools)
        self.always = bool(getattr(admission, "always", False))
        deciders = [admission, model_router, *[pool.router for pool in pools]]
        self.hearers: list[Callable[[Job, int, float], None]] = [p.over for p in deciders if hasattr(p, "over")]
        self.able: dict[tuple[str, str], dict[str, Pool]] = {}
        self.sole: dict[tuple[str, str], Pool] = {}
        self.flows: dict[int, Flow | Single] = {}
        self.outside: deque[Request] = deque()
        self.ready: deque[Flow | Single] = deque()
        self.timers: list[tuple[float, int, Any]] = []
        self.entering: deque[tuple[float, LiveJob]] = deque()
        self.due = inf
        self.touched: list[Any] = []
        self.sequence = self.waits = 0
        self.moved = (0, 0)
        self.counts = {"offered": 0, "finished": 0, "rejected": 0, "failed": 0, "cancelled": 0, "unfinished": 0}
        self.handovers: dict[int, Handover] = {}
        self.forget: Callable[[Request], None] | None = None

    # -- requests and their programs

    def _enter(self, request: Request, now: float) -> None:
        flow = self.flows[request.id] = self._flow(request)
        if isinstance(flow, Single) and self.concurrency is None:  # nobody waits for it to end: it can nest nothing
            self._send(flow.begin(now), now)
        else:
            self._advance(flow, now)

    def _flow(self, request: Request) -> Flow | Single:
        try:
            program = self.programs[request.program]
        except KeyError as missing:
            if missing.args != (request.program,):  # from within a program that is imported here
                raise
            raise unknown("program", request.program, self.programs) from None
        made = program(request)
        return Single(request, made) if isinstance(made, Call) else Flow(request, made)

    def _advance(self, flow: Flow | Single, now: float) -> None:
        """Let a program go on. A call may be over at once (refused), so this is a line and never nests."""
        self.ready.append(flow)
        if len(self.ready) > 1:
            return
        while self.ready:
            self._step(self.ready[0], now)
            self.ready.popleft()

    def _step(self, flow: Flow | Single, now: float) -> None:
        jobs = flow.step(now)
        if jobs is not None:
            for job in jobs:
                self._send(job, now)
        else:
            self._close(flow, *flow.outcome(), now)

    def _send(self, job: LiveJob, now: float) -> None:
        """A call of a model takes the API path of its engine first."""
        if self.request_s and job.kind == "generate":
            at = now + self.request_s
            self.entering.append((at, job))
            if at < self.due:
                self.due = at
        else:
            self._offer(job, now)

    def _over(self, job: LiveJob, now: float) -> None:
        """A job is over, one way or another: log it, and let its program go on with the reply."""
        flow = job.flow
        if flow is None:
            self._moved(job, now)
            return
        self.log.jobs.append(self._row(job, now))
        for hear in self.hearers:
            hear(job, job.out, now)
        if job.origin is not None:
            tell_over(job.origin, job, now)
        if flow.call is None and not flow.over(job):
            return
        if flow.cancelled:
            flow.close()
            self._close(flow, "cancelled", flow.cancelled, now)
        elif flow.call is not None:
            self._close(flow, job.status, job.reason, now)
            job.flow = None  # they refer to each other: leave nothing to the cycle collector
        else:
            self._advance(flow, now)

    def _close(self, flow: Flow | Single, status: str, reason: str, now: float) -> None:
        request = flow.request
        del self.flows[request.id]
        self.counts[status] += 1
        log = self.log
        log.requests.append(flow.row(status, reason, now))
        if log.sink is not None and (len(log.plans) >= log.chunk or len(log.decisions) >= log.chunk):
            log.flush()
        forget = self.forget
        if forget is not None:
            forget(request)
        if self.concurrency is not None and self.outside and len(self.flows) < self.concurrency:
            waiting = self.outside.popleft()
            waiting.arrival = now
            self._enter(waiting, now)

    def _row(self, job: LiveJob, now: float) -> tuple[Any, ...]:
        server = self.servers[job.server].name if job.server >= 0 else ""
        return (
            job.id, job.request, job.kind, job.model, job.pool, server, job.arrived, job.started, job.first, now,
            job.prompt, job.out, job.cached, job.preemptions, job.status,
        )  # fmt: skip

    # -- the way of a job: choose a pool, admit, route, queue

    def _offer(self, job: LiveJob, now: float) -> None:
        pool = self.sole.get((job.kind, job.model)) or self._choose(job, now)
        if pool is None:
            self._refuse(job, "failed", f"no pool serves {job.kind} jobs of model '{job.model}'", now)
            return
        if not self.always:
            verdict = self.admission.admit(job, pool.board, now)
            if not self._admitted(job, verdict, now):
                return
        self._route(job, pool, now)

    def _choose(self, job: LiveJob, now: float) -> Pool | None:
        able = self.able.get((job.kind, job.model))
        if able is None:
            able = {name: pool for name, pool in self.pools.items() if pool.serves(job)}
            self.able[job.kind, job.model] = able
            if len(able) == 1:
                self.sole[job.kind, job.model] = next(iter(able.values()))
        return self._pick(job, able, now)

    def _pick(self, job: LiveJob, able: Mapping[str, Pool], now: float) -> Pool | None:
        """One of several pools, by the model router."""
        if len(able) < 2:
            for pool in able.values():
                return pool
            return None
        views = {name: pool.board for name, pool in able.items()}
        choice = self.model_router.choose(job, views, now)
        if choice not in able:
            name = type(self.model_router).__name__
            raise PolicyError(f"policy {name} chose pool {choice!r} for job {job.id}: there are {', '.join(able)}.")
        self.log.decide(GATEWAY, type(self.model_router).__name__, job.id, f"pool {choice}", 0)
        return able[choice]

    def _admitted(self, job: LiveJob, verdict: Verdict, now: float) -> bool:
        name = type(self.admission).__name__
        _check(name, "admit", verdict)
        if verdict.admit:
            self.log.decide(GATEWAY, name, job.id, "admit", 0)
            return True
        if verdict.retry_s is None:
            self.log.decide(GATEWAY, name, job.id, f"reject {verdict.reason}", 0)
            self._refuse(job, "rejected", verdict.reason, now)
            return False
        self.log.decide(GATEWAY, name, job.id, "later", 0)
        self._later(now + verdict.retry_s, job)
        return False

    def _route(self, job: LiveJob, pool: Pool, now: float) -> None:
        if self.stale:
            self._tick_views(now)
        server = pool.route(job, now)
        if server is None:
            self._refuse(job, "failed", f"no replica of pool '{pool.name}' is up", now)
            return
        job.pool = pool.name
        log = self.log
        log.decisions.append((next(log.order), GATEWAY, pool.router_name, job.id, server.name, 0))
        reason = server.refuses(job)
        if reason:
            self._refuse(job, "rejected", reason, now)
            return
        server.submit(job, now)
        if server.cut_wanted or len(server.flights) < server.depth:
            self.touched.append(server)

    def _refuse(self, job: LiveJob, status: str, reason: str, now: float) -> None:
        job.status, job.reason = status, reason
        self._over(job, now)

    def _lost(self, job: LiveJob, now: float) -> None:
        """A job whose server died."""
        job.server = -1
        job.attempt += 1
        if job.doomed:
            job.status = job.doomed
            self._over(job, now)
            return
        if self.pools[job.pool].role == "decode":  # its KV is gone: the prompt has to be computed again
            entry = self._choose(job, now)
            job.pool = entry.name if entry is not None else job.pool
        verdict = self.faults.lost(job, job.attempt, now)
        name = type(self.faults).__name__
        _check(name, "lost", verdict)
        if verdict.admit:
            self.log.decide(GATEWAY, name, job.id, "again", 0)
            self._route(job, self.pools[job.pool], now)
        elif verdict.retry_s is not None:
            self.log.decide(GATEWAY, name, job.id, "later", 0)
            self._later(now + verdict.retry_s, job)
        else:
            self.log.decide(GATEWAY, name, job.id, "give up", 0)
            self._refuse(job, "failed", verdict.reason or "its server died", now)

    def _later(self, at: float, what: Any) -> None:
        self.sequence += 1
        heappush(self.timers, (at, self.sequence, what))
        if at < self.due:
            self.due = at

    def _tick_views(self, now: float) -> None:
        for pool in self.pools.values():
            if pool.board.period:
                pool.board.tick(now)

    def _moved(self, move: LiveJob, now: float) -> None:
        handover = self.handovers.pop(move.id)
        handover.arrive(now, self._over)
        job = handover.job
        if job.server == handover.target.index:
            job.pool = self.home[job.server].name
        self.touched += [handover.source, handover.target]
        for server in (handover.source, handover.target):
            self.home[server.index].changed(server)


def _check(policy: str, method: str, verdict: object) -> None:
    """PolicyError unless it is a Verdict whose waiting time can be waited."""
    if not isinstance(verdict, Verdict):
        raise PolicyError(f"policy {policy} answered {verdict!r}: {method} must return a Verdict.")
    wait = verdict.retry_s
    if not verdict.admit and wait is not None and not (isinstance(wait, int | float) and 0 < wait < inf):
        raise PolicyError(f"policy {policy} said retry_s={wait!r}: it must be more than 0 seconds, and finite.")

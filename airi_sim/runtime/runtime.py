"""The runtime decides what; a driver decides how long. All the glue between policies lives here, for both worlds.

A driver calls `arrive`, `finish`, `tick`, `cancel`, `server_down` and `server_up` with the time, then serves `touched`:
for each server in it, cut the plan in flight if `server.cut_wanted`, and start what `plan(server, now)` returns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from heapq import heappop, heappush
from math import inf
from typing import Any

from airi_sim.core.errors import PolicyError, unknown
from airi_sim.core.log import Log
from airi_sim.core.protocols import Admission, Executor, FaultPolicy, ModelRouter
from airi_sim.core.types import Outcome, Plan, Program, Request, Verdict
from airi_sim.runtime.flow import Flow
from airi_sim.runtime.handover import Handover
from airi_sim.runtime.job import LiveJob
from airi_sim.runtime.pool import Pool

GATEWAY = "gateway"
WAITS_EACH, WAITS = 10_000, 2_000_000
"""Timers that may ring, for each unfinished request and at most, while nothing runs and nobody comes."""


class Runtime:
    """Requests in, decisions out. `concurrency`: at most so many requests in flight, later ones wait outside."""

    def __init__(
        self,
        pools: Sequence[Pool],
        log: Log,
        *,
        admission: Admission,
        model_router: ModelRouter,
        faults: FaultPolicy,
        programs: Mapping[str, Callable[[Request], Program]],
        concurrency: int | None = None,
    ) -> None:
        self.pools = {pool.name: pool for pool in pools}
        self.log = log
        self.admission, self.model_router, self.faults, self.programs = admission, model_router, faults, programs
        self.concurrency = concurrency
        self.servers: list[Any] = [server for pool in pools for server in pool.servers]
        self.home = [pool for pool in pools for _ in pool.servers]
        self.stale = any(pool.board.period for pool in pools)
        self.always = bool(getattr(admission, "always", False))
        self.able: dict[tuple[str, str], dict[str, Pool]] = {}
        self.flows: dict[int, Flow] = {}
        self.outside: deque[Request] = deque()
        self.letting_in = False
        self.timers: list[tuple[float, int, Any]] = []
        self.touched: list[Any] = []
        self.sequence = self.waits = 0
        self.moved = (0, 0)
        self.counts = {"offered": 0, "finished": 0, "rejected": 0, "failed": 0, "cancelled": 0, "unfinished": 0}
        self.handovers: dict[int, Handover] = {}
        self.forget: Callable[[Request], None] | None = None

    # -- the seam

    def attach(self, executors: Sequence[Executor]) -> None:
        """Executor i runs the plans of server i; a driver calls this once."""
        for server, executor in zip(self.servers, executors, strict=True):
            server.attach(executor)

    def arrive(self, request: Request, now: float) -> None:
        """A request comes in."""
        self.counts["offered"] += 1
        if self.concurrency is not None and len(self.flows) >= self.concurrency:
            self.outside.append(request)
            return
        self._enter(request, now)

    def plan(self, server: Any, now: float) -> Plan | None:
        """What the server runs next (the driver starts it), with the columns kept up to date."""
        if self.stale:
            self._tick_views(now)
        plan: Plan | None = server.plan(now)
        if server.preempted or (plan is not None and plan.slices):
            self.home[server.index].changed(server)
        if plan is None and server.wake < inf:
            if not server.wake > now:
                raise PolicyError(
                    f"policy {server.policy} on {server.name} runs nothing at {now} s and wants to be asked again at "
                    f"{server.wake} s: 'until' of its horizon must be later."
                )
            self._later(server.wake, server)
        return plan

    def finish(self, plan: Plan, outcome: Outcome, now: float) -> None:
        """A plan is over."""
        if self.stale:
            self._tick_views(now)
        server = self.servers[plan.server]
        if outcome.failed:
            self.server_down(server.index, now)
            return
        ended = server.commit(plan, outcome, now)
        self.touched.append(server)
        if ended:
            self.home[server.index].changed(server)
            for job in ended:
                self._over(job, now)
        if server.parted:
            self._depart(server, now)

    def wakeup(self) -> float:
        """The next moment `tick` wants to be called."""
        return self.timers[0][0] if self.timers else inf

    def tick(self, now: float) -> bool:
        """Do what was put off until now: jobs told to come later, servers that wait on purpose. False: nothing that
        still matters was due."""
        due = False
        while self.timers and self.timers[0][0] <= now:
            self._watch()
            at, _, what = heappop(self.timers)
            if not isinstance(what, LiveJob):
                if what.wake == at:  # else it has been asked meanwhile
                    self.touched.append(what)
                    due = True
            elif not what.doomed:
                due = True
                if what.attempt:  # it was in already when its server died
                    self._route(what, self.pools[what.pool], now)
                else:
                    self._offer(what, now)
        return due

    def _watch(self) -> None:
        """Timers that ring on and on while nothing runs and nobody comes end the run."""
        self.waits += 1
        if self.waits < min(WAITS, WAITS_EACH * (len(self.flows) + 1)):
            return
        moved = (self.counts["offered"], sum([server.passes for server in self.servers]))
        if moved == self.moved:
            raise PolicyError(self.stuck())
        self.waits, self.moved = 0, moved

    def cancel(self, request: int, now: float, reason: str = "cancelled") -> None:
        """Give a request up, in whatever state its jobs are; unknown or finished ones are left alone. `reason` goes
        into the tables."""
        if self.stale:
            self._tick_views(now)
        flow = self.flows.get(request) or self._from_outside(request)
        if flow is None:
            return
        flow.cancelled = reason
        if not flow.jobs:
            self._close(flow, "cancelled", reason, now)
        for job in list(flow.jobs.values()):
            if job.doomed:
                continue
            if job.server < 0:
                job.doomed = job.status = "cancelled"
                self._over(job, now)
                continue
            server = self.servers[job.server]
            if server.cancel(job, "cancelled", now):
                self._over(job, now)
            self.home[server.index].changed(server)
            self.touched.append(server)

    def _from_outside(self, request: int) -> Flow | None:
        """A request that waits for others to end, as a flow that has not begun."""
        waiting = next((one for one in self.outside if one.id == request), None)
        if waiting is None:
            return None
        self.outside.remove(waiting)
        flow = self.flows[request] = Flow(waiting, self.programs[waiting.program])
        return flow

    def server_down(self, index: int, now: float) -> None:
        """A server died with everything in its memory; FaultPolicy says what becomes of its jobs."""
        if self.stale:
            self._tick_views(now)
        server, pool = self.servers[index], self.home[index]
        if not server.up:
            return
        lost = server.fail(now)
        pool.board.mark(pool.slot[index], up=False)
        pool.changed(server)
        self.touched.append(server)
        for job in lost:
            if job.flow is None:  # the link died: what it moved stays where it was
                handover = self.handovers.pop(job.id)
                handover.stay(now, self._over)
                self.touched += [handover.source, handover.target]
            else:
                self._lost(job, now)

    def server_up(self, index: int, now: float) -> None:
        """A server is back, empty."""
        if self.stale:
            self._tick_views(now)
        server, pool = self.servers[index], self.home[index]
        server.revive()
        pool.board.mark(pool.slot[index], up=True)
        self.touched.append(server)

    def hand_over(self, job: LiveJob, target: Any, link: Any, bytes_per_token: int, now: float) -> None:
        """Move a decoding job with its KV to the server `target` over `link`; see handover.py."""
        if self.stale:
            self._tick_views(now)
        source = self.servers[job.server]
        if job.lane is None and job.id not in source.paused:
            raise ValueError(f"job {job.id} is not decoding on {source.name}: only decoding jobs can be handed over.")
        move = Handover(job, source, target, link, bytes_per_token)
        self.log.decide(GATEWAY, "hand_over", job.id, target.name, 0)
        self.touched.append(source)
        if move.begin(now):
            self._depart(source, now)

    def _depart(self, source: Any, now: float) -> None:
        parted, source.parted = source.parted, []
        for job in parted:
            self.sequence += 1
            handover = job.moving
            move = handover.depart(self.sequence, now, self._over)
            self.touched += [source, handover.target]
            if move is not None:
                self.handovers[move.id] = handover
                self.touched.append(self.servers[move.server])

    def _moved(self, move: LiveJob, now: float) -> None:
        handover = self.handovers.pop(move.id)
        handover.arrive(now, self._over)
        job = handover.job
        if job.server == handover.target.index:
            job.pool = self.home[job.server].name
        self.touched += [handover.source, handover.target]
        for server in (handover.source, handover.target):
            self.home[server.index].changed(server)

    # -- requests and their programs

    def _enter(self, request: Request, now: float) -> None:
        program = self.programs.get(request.program)
        if program is None:
            raise unknown("program", request.program, self.programs)
        flow = self.flows[request.id] = Flow(request, program)
        self._advance(flow, now)

    def _advance(self, flow: Flow, now: float) -> None:
        jobs = flow.step(now)
        if jobs is not None:
            for job in jobs:
                self._offer(job, now)
        elif flow.failed is not None:  # the program ended on a reply that was no success
            self._close(flow, flow.failed.status, flow.failed.reason, now)
        else:
            self._close(flow, "finished", flow.last.reason if flow.last is not None else "", now)

    def _over(self, job: LiveJob, now: float) -> None:
        """A job is over, one way or another: log it, and let its program go on with the reply."""
        flow = job.flow
        if flow is None:
            self._moved(job, now)
            return
        self.log.jobs.append(self._row(job, now))
        if not flow.over(job):
            return
        if flow.cancelled:
            flow.program.close()
            self._close(flow, "cancelled", flow.cancelled, now)
        else:
            self._advance(flow, now)

    def _close(self, flow: Flow, status: str, reason: str, now: float) -> None:
        request = flow.request
        del self.flows[request.id]
        self.counts[status] += 1
        self.log.requests.append(flow.row(status, reason, now))
        self.log.spill()
        if self.forget is not None:
            self.forget(request)
        if self.outside and not self.letting_in:
            self._let_in(now)

    def _let_in(self, now: float) -> None:
        """Requests that waited for others to end. Some may be over at once, so this is a loop and never nests."""
        assert self.concurrency is not None
        self.letting_in = True
        while self.outside and len(self.flows) < self.concurrency:
            waiting = self.outside.popleft()
            waiting.arrival = now
            self._enter(waiting, now)
        self.letting_in = False

    def _row(self, job: LiveJob, now: float) -> tuple[Any, ...]:
        server = self.servers[job.server].name if job.server >= 0 else ""
        return (
            job.id, job.request, job.kind, job.model, job.pool, server, job.submitted,
            job.started if job.started >= 0 else None, job.first if job.first >= 0 else None, now,
            job.prompt, job.out, job.cached, job.preemptions, job.status,
        )  # fmt: skip

    # -- the way of a job: choose a pool, admit, route, queue

    def _offer(self, job: LiveJob, now: float) -> None:
        pool = self._choose(job, now)
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
        if len(able) < 2:
            return next(iter(able.values()), None)
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
        self.log.decide(GATEWAY, pool.router_name, job.id, server.name, 0)
        reason = server.refuses(job)
        if reason:
            self._refuse(job, "rejected", reason, now)
            return
        server.submit(job, now)
        pool.changed(server)
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

    def _tick_views(self, now: float) -> None:
        for pool in self.pools.values():
            if pool.board.period:
                pool.board.tick(now)

    # -- the end of a run

    def stuck(self) -> str:
        """When nothing is left to happen but requests are unfinished: who holds them (the watchdog's message)."""
        for server in self.servers:
            jobs = server.stuck()
            if jobs:
                ids = ", ".join([str(job.id) for job in jobs[:5]])
                policies = f"{type(server.queue).__name__} and {server.policy}"
                return (
                    f"nothing moves any more: {server.name} holds {len(jobs)} jobs ({ids}{', ...' * (len(jobs) > 5)}) "
                    f"that its policies {policies} never run."
                )
        put_off = [what.id for _, _, what in self.timers if isinstance(what, LiveJob)]
        if put_off:
            ids = ", ".join([str(job) for job in sorted(put_off)[:5]])
            name = type(self.admission).__name__
            return (
                f"nothing moves any more: policy {name} tells {len(put_off)} jobs ({ids}, ...) to come later, always."
            )
        return f"nothing moves any more: {len(self.flows)} requests wait for replies that never come."

    def abandon(self, now: float) -> None:
        """The run ends here: what is still under way is logged as unfinished, with what it had got by now."""
        if self.flows:
            for server in self.servers:
                server.fail(now)
        for request in self.outside:
            self.flows[request.id] = Flow(request, self.programs[request.program])
        self.outside.clear()
        for flow in list(self.flows.values()):
            for job in list(flow.jobs.values()):
                job.status = "unfinished"
                self.log.jobs.append(self._row(job, now))
                flow.over(job)
            self._close(flow, "unfinished", "the run ended", now)


def _check(policy: str, method: str, verdict: object) -> None:
    """PolicyError unless it is a Verdict whose waiting time can be waited."""
    if not isinstance(verdict, Verdict):
        raise PolicyError(f"policy {policy} answered {verdict!r}: {method} must return a Verdict.")
    wait = verdict.retry_s
    if not verdict.admit and wait is not None and not (isinstance(wait, int | float) and 0 < wait < inf):
        raise PolicyError(f"policy {policy} said retry_s={wait!r}: it must be more than 0 seconds, and finite.")

"""The runtime decides what; a driver decides how long. All the glue between policies lives here, for both worlds.

A driver calls `arrive`, `finish`, `tick`, `cancel`, `server_down` and `server_up` with the time, then serves `touched`:
for each server in it, cut the plan in flight if `server.cut_wanted`, and start what `plan(server, now)` returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop
from math import inf
from typing import Any

from airi_sim.core.errors import PolicyError
from airi_sim.core.protocols import Executor
from airi_sim.core.types import Ended, Plan, Request
from airi_sim.runtime.flow import Flow, Single
from airi_sim.runtime.gateway import GATEWAY
from airi_sim.runtime.handover import Handover
from airi_sim.runtime.job import LiveJob
from airi_sim.runtime.relay import Relay

WAITS_EACH, WAITS = 10_000, 2_000_000
"""Timers that may ring, for each unfinished request and at most, while nothing runs and nobody comes."""


class Runtime(Relay):
    """Requests in, decisions out: what a driver sees of it all."""

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
        """What the server runs next (the driver starts it). Asked after `touched` at the same `now` only."""
        if self.lines:
            self.board(server, now)
        plan: Plan | None = server.plan(now)
        if plan is None:
            self.rest(server, now)
        return plan

    def rest(self, server: Any, now: float) -> None:
        """A server runs nothing: until it is touched, or on purpose until a moment of its own choice."""
        if server.wake == inf:
            return
        if not server.wake > now:
            raise PolicyError(
                f"policy {server.policy} on {server.name} runs nothing at {now} s and wants to be asked again at "
                f"{server.wake} s: 'until' of its horizon must be later."
            )
        self._later(server.wake, server)

    def finish(self, plan: Plan, outcome: Ended, now: float) -> None:
        """A plan is over."""
        if self.stale:
            self._tick_views(now)
        server = self.servers[plan.server]
        if outcome[4]:  # failed
            self.server_down(server.index, now)
            return
        self.touched.append(server)
        for job in server.commit(plan, outcome, now):
            self._over(job, now)
        if self.relays and plan.ends:
            self._hand_on(server, plan, now)
        if server.parted:
            self._depart(server, now)

    def wakeup(self) -> float:
        """The next moment `tick` wants to be called."""
        return self.due

    def tick(self, now: float) -> bool:
        """Do what was put off until now: jobs at the end of the API path, jobs told to come later, servers that wait on
        purpose. False: nothing that still matters was due."""
        due, entering = False, self.entering
        while entering and entering[0][0] <= now:
            _, job = entering.popleft()
            if not job.doomed:
                due = True
                self._offer(job, now)
        if self.timers:
            due = self._ring(now) or due
        self.due = entering[0][0] if entering else inf
        if self.timers and self.timers[0][0] < self.due:
            self.due = self.timers[0][0]
        return due

    def _ring(self, now: float) -> bool:
        """The timers whose time has come."""
        if self.stale:  # who wakes drafts
            self._tick_views(now)
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
            elif job.moving is not None and job.moving.waiting:
                self._give_up(job.moving, now)
            self.home[server.index].changed(server)
            self.touched.append(server)

    def _from_outside(self, request: int) -> Flow | Single | None:
        """A request that waits for others to end, as a flow that has not begun."""
        waiting = next((one for one in self.outside if one.id == request), None)
        if waiting is None:
            return None
        self.outside.remove(waiting)
        flow = self.flows[request] = self._flow(waiting)
        return flow

    def server_down(self, index: int, now: float) -> None:
        """A server died with everything in its memory; FaultPolicy says what becomes of its jobs."""
        if self.stale:
            self._tick_views(now)
        server, pool = self.servers[index], self.home[index]
        if not server.up:
            return
        lost = server.fail(now)
        pool.board.mark(server.slot, up=False)
        pool.changed(server)
        self.touched.append(server)
        if self.handovers or self.lines:
            self._lost_end(server, now)
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
        pool.board.mark(server.slot, up=True)
        self.touched.append(server)

    def hand_over(self, job: LiveJob, target: Any, link: Any, bytes_per_token: int, now: float) -> None:
        """Move a decoding job with its KV to the server `target` over `link`; see handover.py."""
        if self.stale:
            self._tick_views(now)
        source = self.servers[job.server]
        if job.lane is None and job.id not in source.paused:
            raise ValueError(f"job {job.id} is not decoding on {source.name}: only decoding jobs can be handed over.")
        move = Handover(job, source, target, link, lambda tokens: tokens * bytes_per_token)
        self.log.decide(GATEWAY, "hand_over", job.id, target.name, 0)
        self.touched.append(source)
        if move.begin(now):
            self._depart(source, now)

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
        self._strand()
        for request in self.outside:
            self.flows[request.id] = self._flow(request)
        self.outside.clear()
        for flow in list(self.flows.values()):
            for job in list(flow.jobs.values()):
                job.status = "unfinished"
                self.log.jobs.append(self._row(job, now))
                flow.over(job)
            self._close(flow, "unfinished", "the run ended", now)

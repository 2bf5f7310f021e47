"""Prompts in one pool, decoding in another (Patel et al., Splitwise, ISCA 2024; Zhong et al., DistServe, OSDI 2024).

A job enters a pool of role prefill. When its prompt is done, which gives the first token, the router of a pool of role
decode (of the same model) chooses a replica, and the job moves there with its KV over the link. While that replica has
no room for it, it waits at the source and keeps its memory there, in order of arrival; room goes first to jobs that
lost theirs at the target. If no decoding replica is up, or the link dies, the job decodes where it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from airi_sim.core.types import Plan
from airi_sim.runtime.gateway import GATEWAY, Gateway
from airi_sim.runtime.handover import Handover
from airi_sim.runtime.pool import Pool

Size = Callable[[int], int]


class Relay(Gateway):
    """The part of the runtime that hands jobs on. `link` is the server whose jobs are moves, `kv_bytes` tells the bytes
    of the KV of so many tokens, by the name of the prefill pool; both are needed only where pools have such roles.

    `lines`: moves that wait for room, by the index of their target.
    """

    def __init__(self, *parts: Any, link: Any = None, kv_bytes: Mapping[str, Size] | None = None, **more: Any) -> None:
        super().__init__(*parts, **more)
        self.link, self.kv_bytes = link, kv_bytes or {}
        self.lines: dict[int, deque[Handover]] = {}
        self.relays = {pool.name: self._decoders(pool) for pool in self.pools.values() if pool.role == "prefill"}

    def _decoders(self, prefill: Pool) -> dict[str, Pool]:
        """The pools that go on with what a prefill pool began."""
        found = [pool for pool in self.pools.values() if pool.role == "decode" and pool.model == prefill.model]
        return {pool.name: pool for pool in found}

    def _hand_on(self, server: Any, plan: Plan, now: float) -> None:
        """Prompts are done: whoever needs more than the first token moves to a decoding replica."""
        pool = self.home[server.index]
        decoders = self.relays.get(pool.name)
        if decoders is None:
            return
        for job in plan.ends:
            if job.id not in server.running or job.lane is None:
                continue
            to = self._pick(job, decoders, now)
            target = to.route(job, now) if to is not None else None
            if to is None or target is None:
                continue
            self.log.decide(GATEWAY, to.router_name, job.id, f"decode {target.name}", 0)
            handover = Handover(job, server, target, self.link, self.kv_bytes[pool.name], patient=True)
            handover.ahead_s = now - job.started
            to.changed(target)
            handover.begin(now)

    def _depart(self, source: Any, now: float) -> None:
        """Jobs stand still at `source` and can leave."""
        parted, source.parted = source.parted, []
        for job in parted:
            handover = job.moving
            if not handover.patient:
                self._embark(handover, now)
                continue
            self._line_up(handover, now)
            if handover.waiting:  # nothing is sent before there is room
                handover.ahead_s = 0.0

    def _line_up(self, handover: Handover, now: float) -> None:
        handover.waiting = True
        self.lines.setdefault(handover.target.index, deque()).append(handover)
        self.board(handover.target, now)

    def board(self, target: Any, now: float) -> None:
        """Let go whoever waits for `target`, in order of arrival, as long as there is room."""
        line = self.lines.get(target.index)
        while line:
            self._embark(line[0], now)
            if line[0].waiting:
                return
            line.popleft()
        self.lines.pop(target.index, None)

    def _embark(self, handover: Handover, now: float) -> None:
        move = handover.depart(now, self._over)
        if handover.waiting:
            return
        self.touched += [handover.source, handover.target]
        for server in (handover.source, handover.target):
            self.home[server.index].changed(server)
        if move is not None:
            self.handovers[move.id] = handover
            self.touched.append(self.servers[move.server])

    def _give_up(self, handover: Handover, now: float) -> None:
        """A job that waits for room was cancelled."""
        self.lines[handover.target.index].remove(handover)
        handover.stay(now, self._over)
        self.board(handover.target, now)

    def _moves(self) -> list[Handover]:
        """Those on their way, then those that wait for room."""
        return [*self.handovers.values(), *[handover for line in self.lines.values() for handover in line]]

    def _strand(self) -> None:
        """The run is over: nobody moves any more."""
        for handover in self._moves():
            handover.void()
        self.handovers.clear()
        self.lines.clear()

    def _lost_end(self, dead: Any, now: float) -> None:
        """A server died. Moves from it are void; those that wait for it look for another target."""
        for handover in self._moves():
            if handover.source is dead:
                handover.void()
                self.touched.append(handover.target)
        for line in self.lines.values():
            for handover in [one for one in line if one.source is dead]:
                line.remove(handover)
        pool = self.home[dead.index]
        for handover in self.lines.pop(dead.index, ()):
            target = pool.route(handover.job, now)
            if target is None:
                handover.stay(now, self._over)
                self.touched.append(handover.source)
            else:
                handover.redirect(target)
                self.log.decide(GATEWAY, pool.router_name, handover.job.id, f"decode {target.name}", 0)
                self._line_up(handover, now)
        for index in list(self.lines):
            self.board(self.servers[index], now)

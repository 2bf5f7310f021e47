"""A job with the state its server keeps; policies are given the same object typed as core.Job, which has none of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airi_sim.core.types import Call, Job, Request

if TYPE_CHECKING:
    from airi_sim.runtime.flow import Flow, Single
    from airi_sim.runtime.lockstep import Lockstep

init_job = Job.__init__  # found faster here than in its class


class LiveJob(Job):
    """`done` tokens in the KV cache while the prompt is under way and `held` its blocks; while it decodes (`lane` is
    set) those are derived from (n0, g0, lane.passes) and `out` lags: read them through the server only.
    `origin` is the queue of the server that handed it on, if that wants to hear of its end;
    `version` voids what executors remember of it; `own` are the cached prefixes it holds a reference to.

    Building a job is part of the hot path: what may be read before it was written is set here, in one go (a value in
    the class would be cheaper to leave out but five times as dear to read).
    """

    __slots__ = (
        "attempt", "cached", "cached_version", "done", "doomed", "emitted", "first", "flow", "g0", "hashes", "held",
        "hit", "joined_pass", "joined_s", "lane", "moving", "n0", "origin", "out", "own", "pool", "reason", "server",
        "sliced", "started", "status", "table", "version",
    )  # fmt: skip

    own: list[Any]
    table: list[int]
    joined_s: float
    joined_pass: int
    emitted: bool

    def __init__(
        self, request: Request, call: Call, index: int, arrived: float, flow: Flow | Single | None = None
    ) -> None:
        init_job(self, request, call, index, arrived)
        self.flow = flow
        self.pool = self.reason = self.status = self.doomed = ""
        self.server = self.cached_version = -1
        self.attempt = self.done = self.held = self.out = self.cached = self.sliced = 0
        self.n0 = self.g0 = self.version = self.hit = 0
        self.started: float | None = None
        self.first: float | None = None
        self.lane: Lockstep | None = None
        self.moving: Any = None
        self.origin: Any = None
        self.hashes: tuple[Any, ...] = ()

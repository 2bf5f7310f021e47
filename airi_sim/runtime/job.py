"""A job with the state its server keeps; policies are given the same object typed as core.Job, which has none of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airi_sim.core.types import Call, Job, Request

if TYPE_CHECKING:
    from airi_sim.runtime.flow import Flow
    from airi_sim.runtime.lockstep import Lockstep

UNSET = -1.0


class LiveJob(Job):
    """`done` tokens in the KV cache while the prompt is under way and `held` its blocks; while it decodes (`lane` is
    set) those are derived from (n0, g0, lane.passes) and `out` lags: read them through the server only.
    `version` voids what executors remember of it; `own` are the cached prefixes it holds a reference to."""

    __slots__ = (
        "attempt",
        "cached",
        "cached_version",
        "done",
        "doomed",
        "emitted",
        "finished",
        "first",
        "flow",
        "g0",
        "hashes",
        "held",
        "hit",
        "joined_pass",
        "joined_s",
        "lane",
        "moving",
        "n0",
        "out",
        "own",
        "pool",
        "reason",
        "server",
        "sliced",
        "started",
        "status",
        "submitted",
        "table",
        "version",
    )  # fmt: skip

    def __init__(self, request: Request, call: Call, index: int, arrived: float, flow: Flow | None = None) -> None:
        Job.__init__(self, request, call, index, arrived)
        self.flow = flow
        self.pool = ""
        self.server = -1
        self.attempt = 0
        self.status = ""
        self.reason = ""
        self.submitted = arrived
        self.started = self.first = self.finished = UNSET
        self.done = self.held = self.out = self.cached = self.sliced = 0
        self.lane: Lockstep | None = None
        self.n0 = self.g0 = self.version = 0
        self.hashes: tuple[object, ...] = ()
        self.hit = 0
        self.cached_version = -1
        self.own: list[object] = []
        self.table: list[int] = []
        self.joined_s = UNSET
        self.joined_pass = 0
        self.emitted = False
        self.doomed = ""
        self.moving: object | None = None

"""A job with the state its server keeps; policies are given the same object typed as core.Job, which has none of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airi_sim.core.types import Call, Job, Request

if TYPE_CHECKING:
    from airi_sim.runtime.flow import Flow
    from airi_sim.runtime.lockstep import Lockstep

UNSET = -1.0


class LiveJob(Job):
    """`done` tokens in the KV cache while the prompt is under way and `held` its blocks; while it decodes (`lane` is
    set) those are derived from (n0, g0, lane.passes) and `out` lags: read them through the server only.
    `version` voids what executors remember of it; `own` are the cached prefixes it holds a reference to.

    What most jobs never touch has its first value in the class: building a job is part of the hot path.
    """

    pool = reason = status = doomed = ""
    server = cached_version = -1
    started = first = finished = joined_s = UNSET
    attempt = done = held = out = cached = sliced = n0 = g0 = version = hit = joined_pass = 0
    emitted = False
    lane: Lockstep | None = None
    moving: Any = None
    hashes: tuple[Any, ...] = ()
    own: list[Any]
    table: list[int]

    def __init__(self, request: Request, call: Call, index: int, arrived: float, flow: Flow | None = None) -> None:
        Job.__init__(self, request, call, index, arrived)
        self.flow = flow
        self.submitted = arrived

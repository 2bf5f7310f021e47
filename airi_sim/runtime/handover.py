"""A decoding job moves to another server with its KV (P/D disaggregation, migration).

The source holds the blocks until the move commits; the target sets blocks and a seat aside before it begins. Whatever
goes wrong on the way (no room, a cancellation, a server or the link dying), nothing is held twice and nothing leaks.
Both ends cut the plan in flight when what they hold changes, so that fast-forward sees it at the next pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airi_sim.core.types import Call, Request
from airi_sim.runtime.job import LiveJob

Over = Callable[[LiveJob, float], None]


class Handover:
    """One move: `begin` when it is decided, `depart` when the job stands still at the source, then `arrive` when the
    link is done or `stay` when the link died. `over(job, now)` is called for a job that was cancelled on the way."""

    def __init__(self, job: LiveJob, source: Any, target: Any, link: Any, bytes_per_token: int) -> None:
        self.job, self.source, self.target, self.link = job, source, target, link
        self.bytes_per_token = bytes_per_token

    def begin(self, now: float) -> bool:
        """Stop the job at the end of the pass in flight; True if it stands still already."""
        self.job.moving = self
        if self.source.flights:
            self.source.leaving[self.job.id] = self.job
            self.source.cut_wanted = True
            return False
        self.source.part(self.job)
        return True

    def depart(self, number: int, now: float, over: Over) -> LiveJob | None:
        """Put the move on the link; None if the target has no room, then the job goes on where it is."""
        job = self.job
        if job.doomed or not self.target.up or not self.target.expect(job, job.held, now):
            self._back(now, over)
            return None
        size = job.done * self.bytes_per_token
        move = LiveJob(Request(-number, now, size, tenant=job.tenant), Call("move", size), 0, now)
        self.link.submit(move, now)
        return move

    def arrive(self, now: float, over: Over) -> None:
        """The bytes are there."""
        job, target = self.job, self.target
        if job.moving is not self:  # the source died on the way
            target.unexpect(job)
        elif job.doomed or job.id not in target.incoming:  # cancelled, or the target died on the way
            self.stay(now, over)
        else:
            job.moving = None
            self.source.surrender(job)
            target.adopt(job)

    def stay(self, now: float, over: Over) -> None:
        """The move came to nothing."""
        self.target.unexpect(self.job)
        if self.job.moving is self:
            self._back(now, over)

    def _back(self, now: float, over: Over) -> None:
        """The job goes on where it was, unless it was cancelled."""
        job, source = self.job, self.source
        job.moving = None
        if job.doomed:
            source.surrender(job)
            job.status = job.doomed
            over(job, now)
            return
        del source.moving[job.id]
        source.adopted.append(job)
        source.cut_wanted = bool(source.flights)

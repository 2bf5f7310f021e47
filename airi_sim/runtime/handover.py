"""A running job moves to another server with its KV (P/D disaggregation, migration).

The source holds the blocks until the move commits; the target sets blocks and a seat aside before it begins. Whatever
goes wrong on the way (no room, a cancellation, either server dying), nothing is held twice and nothing leaks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airi_sim.core.types import Call, Request
from airi_sim.runtime.job import LiveJob


class Handover:
    """One move. `depart` when the job stands still at the source, `arrive` when the link is done; `done(job, now)` is
    called for a job that was cancelled on the way."""

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

    def depart(self, number: int, now: float) -> LiveJob | None:
        """Put the move on the link; None if the target has no room, then the job goes on where it is."""
        job = self.job
        if not self.target.up or not self.target.expect(job, job.held):
            self._back()
            return None
        size = job.done * self.bytes_per_token
        move = LiveJob(Request(-number, now, size, tenant=job.tenant), Call("move", size), 0, now)
        self.link.submit(move, now)
        return move

    def arrive(self, now: float, over: Callable[[LiveJob, float], None]) -> None:
        """The bytes are there."""
        job, source, target = self.job, self.source, self.target
        there = job.id in target.incoming
        if job.moving is not self:  # the source died on the way
            target.unexpect(job)
            return
        job.moving = None
        if job.doomed:
            target.unexpect(job)
            source.surrender(job)
            job.status, job.finished = job.doomed, now
            over(job, now)
        elif there:
            source.surrender(job)
            target.adopt(job)
        else:  # the target died on the way
            self._back()

    def _back(self) -> None:
        job = self.job
        job.moving = None
        del self.source.moving[job.id]
        self.source.adopted.append(job)
        self.source.cut_wanted = True

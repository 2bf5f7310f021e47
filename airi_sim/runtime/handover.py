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


class Move(LiveJob):
    """A job of a Link: `tokens` bytes between the servers `way` (source, target). During `ahead_s` seconds before it
    was submitted they existed in part, so that a link may have sent them layer by layer."""

    way = (-1, -1)
    ahead_s = 0.0


class Handover:
    """One move: `begin` when it is decided, `depart` when the job stands still at the source, then `arrive` when the
    link is done or `stay` when the link died. `over(job, now)` is called for a job that was cancelled on the way.

    One that is `patient` stands still at the source until the target has room (`waiting`); others go on where they are.
    `size` tells the bytes of the KV of so many tokens.
    """

    def __init__(
        self, job: LiveJob, source: Any, target: Any, link: Any, size: Callable[[int], int], patient: bool = False
    ) -> None:
        self.job, self.source, self.target, self.link = job, source, target, link
        self.size = size
        self.patient = patient
        self.waiting = False
        self.ahead_s = 0.0
        self.announced = True
        target.coming += 1

    def begin(self, now: float) -> bool:
        """Stop the job at the end of the pass in flight; True if it stands still already."""
        self.job.moving = self
        if self.source.flights:
            self.source.leaving[self.job.id] = self.job
            self.source.cut_wanted = True
            return False
        self.source.part(self.job)
        return True

    def depart(self, now: float, over: Over) -> Move | None:
        """Put the move on the link; None if the target has no room: then the job waits, or goes on where it is."""
        job = self.job
        if job.doomed or not self.target.up:
            self._back(now, over)
            return None
        if not self._room(now):
            self.waiting = self.patient and job.held <= self.target.total
            if not self.waiting:
                self._back(now, over)
            return None
        size = self.size(job.done)
        move = Move(Request(-1 - job.id, now, size, tenant=job.tenant), Call("move", size), job.attempt, now)
        move.way = self.source.index, self.target.index
        move.ahead_s = self.ahead_s
        self.waiting = False
        self.link.submit(move, now)
        return move

    def _room(self, now: float) -> bool:
        """Whoever lost its memory at the target goes before those who would wait for room there."""
        target = self.target
        if self.patient and len(target.jobs) > len(target.running):
            return False
        return bool(target.expect(self.job, self.job.held, now))

    def redirect(self, target: Any) -> None:
        """The target it waited for died."""
        self.gone()
        self.target, self.announced = target, True
        target.coming += 1

    def gone(self) -> None:
        """Nobody comes to the target any more by this move."""
        self.target.coming -= self.announced
        self.announced = self.waiting = False

    def arrive(self, now: float, over: Over) -> None:
        """The bytes are there."""
        job, target = self.job, self.target
        self.gone()
        if job.moving is not self:  # the source died on the way
            return
        if job.doomed or job.id not in target.incoming:  # cancelled, or the target died on the way
            self.stay(now, over)
        else:
            job.moving = None
            self.source.surrender(job)
            target.adopt(job)

    def stay(self, now: float, over: Over) -> None:
        """The move came to nothing."""
        if self.job.moving is self:
            self.target.unexpect(self.job)
            self._back(now, over)

    def void(self) -> None:
        """The source died, and its memory with it: the target keeps nothing for a job that may come again."""
        self.gone()
        self.target.unexpect(self.job)

    def _back(self, now: float, over: Over) -> None:
        """The job goes on where it was, unless it was cancelled."""
        job, source = self.job, self.source
        self.gone()
        job.moving = None
        if job.doomed:
            source.surrender(job)
            job.status = job.doomed
            over(job, now)
            return
        del source.moving[job.id]
        source.adopted.append(job)
        source.cut_wanted = bool(source.flights)

"""One request on its way through its program: which jobs are out, what came back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airi_sim.core.errors import BadInput
from airi_sim.core.types import JOBS_PER_REQUEST, Call, Program, Reply, Request
from airi_sim.runtime.job import LiveJob


class Flow:
    """Drives the generator of a program. `step` sends it the replies it waits for and returns the next jobs.

    `call` is set where the program is that one call: such a flow is over with its job and needs no generator.
    """

    __slots__ = (
        "cached", "call", "cancelled", "failed", "first", "jobs", "last", "made", "program", "replies", "request",
        "wants_list",
    )  # fmt: skip

    def __init__(self, request: Request, program: Callable[[Request], Program]) -> None:
        self.request = request
        made = program(request)
        self.call: Call | None = None
        if type(made) is Call:
            self.call = made
        self.program: Any = made
        self.jobs: dict[int, LiveJob] = {}
        self.replies: list[Reply] = []
        self.wants_list = False
        self.made = self.cached = 0
        self.first: float | None = None
        self.last: LiveJob | None = None
        self.failed: LiveJob | None = None
        self.cancelled = ""

    def step(self, now: float) -> list[LiveJob] | None:
        """The next jobs, or None when the program is over."""
        if self.call is not None:
            return None if self.made else [self.job(self.call, now)]
        try:
            calls: Any = self.program.send(self._value() if self.made else None)
        except StopIteration:
            return None
        self.wants_list = isinstance(calls, list)
        todo = calls if self.wants_list else [calls]
        if not todo or not all(isinstance(call, Call) for call in todo):
            raise BadInput(
                f"program '{self.request.program}' yielded {calls!r}: it must yield a Call or a list of Calls."
            )
        return [self.job(call, now) for call in todo]

    def job(self, call: Call, now: float) -> LiveJob:
        """The job of a call."""
        if self.made >= JOBS_PER_REQUEST:
            raise BadInput(f"request {self.request.id} made over {JOBS_PER_REQUEST} calls: its program does not end.")
        job = LiveJob(self.request, call, self.made, now, self)
        self.made += 1
        self.failed = None
        self.jobs[job.id] = job
        return job

    def _value(self) -> Reply | list[Reply]:
        replies, self.replies = self.replies, []
        return sorted(replies) if self.wants_list else replies[0]

    def over(self, job: LiveJob) -> bool:
        """A job is over; True when the program can go on."""
        del self.jobs[job.id]
        if job.status != "finished" and self.failed is None:
            self.failed = job
        if job.kind == "generate":
            self.last = job
            self.cached += job.cached
            if job.first is not None:
                self.first = job.first
        if self.call is not None:
            return True
        self.replies.append(Reply(job.id, job.status, job.out))
        return not self.jobs

    def close(self) -> None:
        """The program goes no further."""
        if self.call is None:
            self.program.close()

    def row(self, status: str, reason: str, now: float) -> tuple[Any, ...]:
        """The line of the requests table."""
        request, last = self.request, self.last
        model, out = (last.model, last.out) if last is not None else ("", 0)
        return (
            request.id, request.tenant, request.session, request.program, model or request.model, request.arrival,
            self.first, now if status == "finished" else None, request.tokens, out, self.cached, status, reason,
        )  # fmt: skip

"""One request on its way through its program: which jobs are out, what came back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airi_sim.core.errors import BadInput
from airi_sim.core.types import JOBS_PER_REQUEST, Call, Program, Reply, Request
from airi_sim.runtime.job import UNSET, LiveJob


class Flow:
    """Drives the generator of a program. `step` sends it the replies it waits for and returns the next jobs."""

    __slots__ = (
        "cached",
        "cancelled",
        "failed",
        "first",
        "jobs",
        "last",
        "made",
        "program",
        "replies",
        "request",
        "wants_list",
    )

    def __init__(self, request: Request, program: Callable[[Request], Program]) -> None:
        self.request = request
        self.program = program(request)
        self.jobs: dict[int, LiveJob] = {}
        self.replies: list[Reply] = []
        self.wants_list = False
        self.made = self.cached = 0
        self.first = UNSET
        self.last: LiveJob | None = None
        self.failed: LiveJob | None = None
        self.cancelled = ""

    def step(self, now: float) -> list[LiveJob] | None:
        """The next jobs, or None when the program is over."""
        try:
            calls: Any = self.program.send(self._value() if self.made else None)
        except StopIteration:
            return None
        if type(calls) is Call:
            self.wants_list = False
            return [self._job(calls, now)]
        self.wants_list = isinstance(calls, list)
        todo = calls if isinstance(calls, list) else [calls]
        if not todo or not all(isinstance(call, Call) for call in todo):
            raise BadInput(
                f"program '{self.request.program}' yielded {calls!r}: it must yield a Call or a list of Calls."
            )
        return [self._job(call, now) for call in todo]

    def _job(self, call: Call, now: float) -> LiveJob:
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
        self.replies.append(Reply(job.id, job.status, job.out))
        if job.status != "finished" and self.failed is None:
            self.failed = job
        if job.kind == "generate":
            self.last = job
            self.cached += job.cached
            if job.first >= 0:
                self.first = job.first
        return not self.jobs

    def row(self, status: str, reason: str, now: float) -> tuple[Any, ...]:
        """The line of the requests table."""
        request, last = self.request, self.last
        done = status == "finished"
        return (
            request.id, request.tenant, request.session, request.program,
            (last.model if last is not None else "") or request.model, request.arrival,
            self.first if self.first >= 0 else None, now if done else None, request.tokens,
            last.out if last is not None else 0, self.cached, status, reason,
        )  # fmt: skip

"""One request on its way through its program: which jobs are out, what came back."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from airi_sim.core.errors import BadInput
from airi_sim.core.types import JOBS_PER_REQUEST, Call, Reply, Request
from airi_sim.runtime.job import LiveJob


class Single:
    """A request whose program is one call: it is over with its job and needs no generator."""

    __slots__ = ("call", "cancelled", "job", "request")

    def __init__(self, request: Request, call: Call) -> None:
        self.request = request
        self.call = call
        self.job: LiveJob | None = None
        self.cancelled = ""

    @property
    def jobs(self) -> dict[int, LiveJob]:
        """What is under way."""
        return {self.job.id: self.job} if self.job is not None else {}

    def begin(self, now: float) -> LiveJob:
        """The only job."""
        job = self.job = LiveJob(self.request, self.call, 0, now, self)
        return job

    def step(self, now: float) -> list[LiveJob]:
        """Its jobs, as of any program."""
        return [self.begin(now)]

    def outcome(self) -> tuple[str, str]:
        """How it ended, and why."""
        return (self.job.status, self.job.reason) if self.job is not None else ("finished", "")

    def over(self, job: LiveJob) -> bool:
        """The job is over, and the program with it."""
        return True

    def close(self) -> None:
        """The program goes no further."""

    def row(self, status: str, reason: str, now: float) -> tuple[Any, ...]:
        """The line of the requests table."""
        request, job = self.request, self.job
        end = now if status == "finished" else None
        if job is None or job.kind != "generate":
            return _row(request, request.model, None, end, 0, 0, status, reason)
        return (
            request.id, request.tenant, request.session, request.program, job.model, request.arrival, job.first, end,
            request.tokens, job.out, job.cached, status, reason,
        )  # fmt: skip


def _row(
    request: Request, model: str, first: float | None, end: float | None, out: int, cached: int, status: str, why: str
) -> tuple[Any, ...]:
    return (
        request.id, request.tenant, request.session, request.program, model, request.arrival, first, end,
        request.tokens, out, cached, status, why,
    )  # fmt: skip


class Flow:
    """Drives the generator of a program. `step` sends it the replies it waits for and returns the next jobs."""

    __slots__ = (
        "cached", "cancelled", "failed", "first", "jobs", "last", "made", "program", "replies", "request", "wants_list",
    )  # fmt: skip

    call = None

    def __init__(self, request: Request, program: Generator[Any, Any, None]) -> None:
        if not isinstance(program, Generator):
            raise BadInput(
                f"program '{request.program}' returned {program!r}: it must yield Calls, or return the only one."
            )
        self.request = request
        self.program = program
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
            if job.first is not None:
                self.first = job.first
        return not self.jobs

    def outcome(self) -> tuple[str, str]:
        """How it ended, and why: on a reply that was no success, or by itself."""
        if self.failed is not None:
            return self.failed.status, self.failed.reason
        return "finished", self.last.reason if self.last is not None else ""

    def close(self) -> None:
        """The program goes no further."""
        self.program.close()

    def row(self, status: str, reason: str, now: float) -> tuple[Any, ...]:
        """The line of the requests table."""
        request, last = self.request, self.last
        model, out = (last.model, last.out) if last is not None else ("", 0)
        end = now if status == "finished" else None
        return _row(request, model or request.model, self.first, end, out, self.cached, status, reason)

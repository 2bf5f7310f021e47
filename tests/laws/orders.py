"""Orders whose head is not the smallest job: without them, fast = stepwise would prove little."""

from __future__ import annotations

from typing import Any

from airi_sim.core.types import FOREVER, Horizon, Job


class Longest:
    """Longest first, by a plain scan."""

    timeless = True

    def __init__(self) -> None:
        self.jobs: list[Any] = []

    def key(self, job: Job, now: float) -> Any:
        return (-job.tokens, job.id)

    def push(self, job: Job, now: float) -> None:
        self.jobs.append(job)

    requeue = push

    def peek(self, now: float) -> Job | None:
        return min(self.jobs, key=lambda job: self.key(job, now), default=None)

    def pop(self, now: float) -> Job:
        job = self.peek(now)
        assert job is not None
        self.jobs.remove(job)
        return job

    def __len__(self) -> int:
        return len(self.jobs)


class AskMeEveryPass(Longest):
    """Says nothing about its horizon: slow, but right."""

    timeless = False


class AgingLongest(Longest):
    """Longest first, but who waits longer than `patience` goes before: a small job may become the head."""

    timeless = False

    def __init__(self, patience: float) -> None:
        super().__init__()
        self.patience = patience

    def key(self, job: Job, now: float) -> Any:
        late = now > job.arrived + self.patience
        return (0, job.arrived, job.id) if late else (1, -job.tokens, job.id)

    def stable(self, now: float, decoding: Any) -> Horizon:
        waiting = [job.arrived + self.patience for job in self.jobs if now <= job.arrived + self.patience]
        return Horizon(FOREVER, min(waiting)) if waiting else Horizon(FOREVER)

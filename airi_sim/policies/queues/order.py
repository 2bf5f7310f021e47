"""Orders that look at arrival, chance and priority alone."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Any

from airi_sim.core.errors import BadInput
from airi_sim.core.types import Job
from airi_sim.policies.queues.waiting import Keyed, Patient


class Fcfs:
    """First come, first served; a preempted job goes back to the front. What vLLM, SGLang and TGI do by default."""

    timeless = True
    account: str | None = None

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()

    def push(self, job: Job, now: float) -> None:
        self._jobs.append(job)

    def requeue(self, job: Job, now: float) -> None:
        self._jobs.appendleft(job)

    def peek(self, now: float) -> Job | None:
        return self._jobs[0] if self._jobs else None

    def pop(self, now: float) -> Job:
        return self._jobs.popleft()

    def remove(self, job: Job, now: float) -> None:
        """Forget a waiting job that was cancelled."""
        self._jobs.remove(job)

    def __len__(self) -> int:
        return len(self._jobs)


class Lcfs(Keyed):
    """Last come, first served: a control. The mean time in an M/M/1 queue is that of Fcfs, the tail is far worse; in an
    overload it keeps the newest fresh and lets the oldest starve. Timeless: the key is the arrival."""

    def key(self, job: Job, now: float) -> Any:
        return -job.arrived


class RandomOrder(Keyed):
    """Service in random order: a control. Each job draws its place when it comes (and again when it comes back), so
    that asking draws nothing. Timeless."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._draw = Random(seed).random

    def key(self, job: Job, now: float) -> Any:
        return self._draw()


class PriorityAging(Patient):
    """Lowest priority number first, then arrival; who waits longer than `patience` seconds goes before all others,
    oldest first. A step instead of linear aging: nobody starves, and within patience priority is absolute.

    The order changes by itself only when the oldest job turns impatient, so that instant is the horizon.
    """

    def __init__(self, patience: float = 30.0) -> None:
        if not patience > 0:
            raise BadInput(f"patience of PriorityAging is {patience} s and must be more than 0.")
        super().__init__(patience)

    def key(self, job: Job, now: float) -> Any:
        return job.priority, job.arrived

    def since(self, job: Job, now: float) -> float:
        """A preempted job has been waiting since it arrived."""
        return job.arrived

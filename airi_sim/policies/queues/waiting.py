"""Jobs that wait, by key: what most orders are made of."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any

from airi_sim.core.types import FOREVER, Horizon, Job

Entry = tuple[Any, int, int, Job]
"""Of a heap: key, job id, number of the stay, job. An entry whose stay is over is void and dropped when it surfaces."""

SLACK = 64
UNBOUNDED = Horizon(FOREVER)


def emitted(job: Job) -> int:
    """Output tokens of a job that waits: more than 0 if it ran before and lost its memory."""
    return job.tokens - job.prompt


class Heap:
    """Jobs in order of a key that each is given when it comes; the smaller id at a tie. All in O(log n)."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.stays: dict[int, int] = {}
        self._numbers = count()

    def push(self, job: Job, key: Any) -> None:
        """A job comes, or comes back, with a key. Void entries go once they are the majority."""
        stay = self.stays[job.id] = next(self._numbers)
        if len(self.entries) > 2 * len(self.stays) + SLACK:
            self.entries = [old for old in self.entries if self.stays.get(old[1]) == old[2]]
            heapify(self.entries)
        heappush(self.entries, (key, job.id, stay, job))

    def top(self) -> Entry:
        """The entry with the smallest key; there must be one."""
        entries, stays = self.entries, self.stays
        while stays.get(entries[0][1]) != entries[0][2]:
            heappop(entries)
        return entries[0]

    def remove(self, job: Job) -> None:
        """Forget a job."""
        del self.stays[job.id]

    def __contains__(self, job: Job) -> bool:
        return job.id in self.stays

    def __len__(self) -> int:
        return len(self.stays)


class Keyed:
    """A queue whose order is a key that a job gets when it comes and keeps while it waits: a class that derives from
    this one says `key`. What is written here is shared code and no interface; a queue needs no base class."""

    timeless = True
    account: str | None = None

    def __init__(self) -> None:
        self.waiting = Heap()

    def key(self, job: Job, now: float) -> Any:
        """Smaller is sooner. Asked once at each push and requeue."""
        raise NotImplementedError(f"{type(self).__name__} must say by which key it orders")

    def push(self, job: Job, now: float) -> None:
        self.waiting.push(job, self.key(job, now))

    def requeue(self, job: Job, now: float) -> None:
        """A preempted job gets a key anew: some of its work is done."""
        self.waiting.push(job, self.key(job, now))

    def peek(self, now: float) -> Job | None:
        return self.waiting.top()[3] if self.waiting.stays else None

    def pop(self, now: float) -> Job:
        job = self.waiting.top()[3]
        self.waiting.remove(job)
        return job

    def remove(self, job: Job, now: float) -> None:
        """Forget a waiting job that was cancelled."""
        self.waiting.remove(job)

    def __len__(self) -> int:
        return len(self.waiting.stays)


class Patient:
    """A `Keyed` order in which nobody waits for ever: who has waited longer than `patience` seconds goes before all
    others, longest wait first. The head changes by itself only when that happens, so that instant is the horizon."""

    timeless = False
    account: str | None = None

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.waiting, self.oldest = Heap(), Heap()

    def key(self, job: Job, now: float) -> Any:
        """As for `Keyed`."""
        raise NotImplementedError(f"{type(self).__name__} must say by which key it orders")

    def since(self, job: Job, now: float) -> float:
        """From when on the job's wait counts; asked when it comes at `now`."""
        return now

    def push(self, job: Job, now: float) -> None:
        self.waiting.push(job, self.key(job, now))
        self.oldest.push(job, self.since(job, now))

    def requeue(self, job: Job, now: float) -> None:
        Patient.push(self, job, now)

    def impatient(self, now: float) -> Job | None:
        """The job that has waited longest, if that is too long."""
        since, _, _, job = self.oldest.top()
        return job if now > since + self.patience else None

    def peek(self, now: float) -> Job | None:
        if not self.waiting.stays:
            return None
        return self.impatient(now) or self.waiting.top()[3]

    def pop(self, now: float) -> Job:
        job = self.impatient(now) or self.waiting.top()[3]
        Patient.remove(self, job, now)
        return job

    def remove(self, job: Job, now: float) -> None:
        """Forget a waiting job that was cancelled."""
        self.waiting.remove(job)
        self.oldest.remove(job)

    def stable(self, now: float, decoding: Mapping[str, int]) -> Horizon:
        """Until the one who has waited longest loses patience, unless it is the head already."""
        since, _, _, job = self.oldest.top()
        patience = since + self.patience
        if now > patience or job is self.waiting.top()[3]:
            return UNBOUNDED
        return Horizon(FOREVER, patience)

    def __len__(self) -> int:
        return len(self.waiting.stays)

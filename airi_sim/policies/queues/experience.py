"""By what users notice: whether the next token is there when they have read the last one."""

from __future__ import annotations

from collections.abc import Mapping
from math import floor, inf

from airi_sim.core.protocols import Draft
from airi_sim.core.types import FOREVER, Horizon, Job
from airi_sim.policies.queues.estimates import positive
from airi_sim.policies.queues.waiting import Heap, emitted


def shortfall(late: float, rate: float, window_s: float) -> float:
    """Area (token seconds) between what a reader wants and what is there, over `window_s` seconds: `late` tokens are
    missing now, `rate` more each second; tokens that are there early count nothing."""
    end = late + rate * window_s
    if late >= 0 and end >= 0:
        return 0.5 * (late + end) * window_s
    if late <= 0 and end <= 0:
        return 0.0
    return 0.5 * max(late, end) ** 2 / abs(rate)


class Qoe:
    """Quality of experience (Andes, Liu et al., arXiv:2404.16283). A user wants the first token `ttft_s` seconds after
    asking, then `speed` tokens a second; what is missing at a time, summed over time, is what they notice. Every
    `quantum_s` seconds each job is worth what serving it (at `pace` tokens a second) instead of not would spare its
    user in the coming quantum, divided by its context, which is the memory it costs. The most valuable goes first, the
    earlier arrival among equals; who has tokens in reserve can wait.

    A running job that is worth less than the head makes way for it (`preemptive`), at the first pass of a quantum only
    and at most `preemptions` times a job. Values hold for a quantum, so its end is the horizon; O(jobs) each quantum.
    """

    timeless = False
    account: str | None = None

    def __init__(
        self,
        ttft_s: float = 1.0,
        speed: float = 4.8,
        pace: float = 20.0,
        quantum_s: float = 1.0,
        preemptions: int = 1,
    ) -> None:
        self.ttft_s, self.speed = positive("ttft_s of Qoe", ttft_s), positive("speed of Qoe", speed)
        self.pace, self.quantum_s = positive("pace of Qoe", pace), positive("quantum_s of Qoe", quantum_s)
        self.preemptions = preemptions
        self._jobs: dict[int, Job] = {}
        self._order = Heap()
        self._end = self._settled = -inf
        self._at = -inf

    def value(self, job: Job, tokens_out: int) -> float:
        """What a job that emitted so many tokens is worth in this quantum, a token of its context."""
        late = self.speed * (self._end - self.quantum_s - job.arrived - self.ttft_s) - tokens_out
        return self._spared(late) / (job.prompt + tokens_out)

    def _spared(self, late: float) -> float:
        """What running instead of waiting spares in this quantum. Who is late all along gains the same however late:
        the difference of two large areas would be noise, and decide between equals."""
        window, slope = self.quantum_s, self.speed - self.pace
        if late >= 0 and late + slope * window >= 0:
            return 0.5 * self.pace * window * window
        return shortfall(late, self.speed, window) - shortfall(late, slope, window)

    def push(self, job: Job, now: float) -> None:
        self._turn(now)
        self._jobs[job.id] = job
        self._rank(job)

    requeue = push

    def peek(self, now: float) -> Job | None:
        self._turn(now)
        return self._order.top()[3] if self._jobs else None

    def pop(self, now: float) -> Job:
        self._turn(now)
        job = self._order.top()[3]
        self.remove(job, now)
        return job

    def remove(self, job: Job, now: float) -> None:
        """Forget a waiting job: it was admitted or cancelled."""
        del self._jobs[job.id]
        self._order.remove(job)

    def stable(self, now: float, decoding: Mapping[str, int]) -> Horizon:
        """To the end of the quantum."""
        self._turn(now)
        return Horizon(FOREVER, self._end)

    def contest(self, draft: Draft, now: float) -> tuple[Job | None, Horizon]:
        """The running job that is worth least, if less than the head; asked in vain until the next quantum."""
        self._turn(now)
        if self._settled == self._end and now > self._at:
            return None, Horizon(FOREVER, self._end)
        self._settled, self._at = self._end, now
        head = -self._order.top()[0][0]
        values = [
            (self.value(job, draft.attained(job)), -job.id, job)
            for job in draft.preemptible.values()
            if job.preemptions < self.preemptions
        ]
        least = min(values, default=(inf, 0, None))
        return (least[2] if least[0] < head else None), Horizon(FOREVER, self._end)

    def _turn(self, now: float) -> None:
        """Value everybody anew when the quantum is over."""
        if now > self._end:
            self._end = max((floor(now / self.quantum_s) + 1) * self.quantum_s, now)
            self._order = Heap()
            for job in self._jobs.values():
                self._rank(job)

    def _rank(self, job: Job) -> None:
        self._order.push(job, (-self.value(job, emitted(job)), job.arrived))

    def __len__(self) -> int:
        return len(self._jobs)

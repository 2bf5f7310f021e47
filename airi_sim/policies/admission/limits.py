"""Admission by how many jobs are inside: a fixed limit, or one that finds itself by how long jobs take."""

from __future__ import annotations

from math import inf, sqrt

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import View
from airi_sim.core.types import Job, Verdict
from airi_sim.policies.admission.common import WELCOME


class ConcurrencyLimit:
    """At most `limit` jobs are inside, the rest is rejected. Little's law turns a limit into a bound on the time inside
    without knowing rates or sizes."""

    def __init__(self, limit: int = 256) -> None:
        if limit < 1:
            raise BadInput(f"limit of {type(self).__name__} is {limit}: let at least 1 job in.")
        self.limit = float(limit)
        self._since: dict[int, float] = {}

    def admit(self, job: Job, view: View, now: float) -> Verdict:
        if len(self._since) >= int(self.limit):
            return Verdict(False, None, f"{int(self.limit)} jobs are inside")
        self._since[job.id] = now
        return WELCOME

    def over(self, job: Job, tokens_out: int, now: float) -> None:
        """A job left; those that got anything teach how long it takes."""
        since = self._since.pop(job.id, None)
        if since is not None and tokens_out:
            self.learn(now - since, len(self._since) + 1)

    def learn(self, seconds: float, inside: int) -> None:
        """A job took so long, among so many: a fixed limit does not care."""


class AimdLimit(ConcurrencyLimit):
    """The limit grows by one every time a whole limit of jobs was in time, and shrinks to `backoff` of itself when one
    was late (additive increase, multiplicative decrease; Chiu and Jain 1989), once in `slo_s` seconds at most.

    It grows only while at least half of it is used: a limit that nobody reaches teaches nothing.
    """

    def __init__(self, slo_s: float = 10.0, limit: int = 32, backoff: float = 0.9, most: int = 4096) -> None:
        super().__init__(limit)
        if not 0 < slo_s < inf or not 0 < backoff < 1 or most < limit:
            raise BadInput("AimdLimit needs slo_s > 0 seconds, backoff between 0 and 1, and most >= limit.")
        self.slo_s = slo_s
        self.backoff = backoff
        self.most = most
        self._clock = 0.0
        self._calm = 0.0

    def over(self, job: Job, tokens_out: int, now: float) -> None:
        self._clock = now
        super().over(job, tokens_out, now)

    def learn(self, seconds: float, inside: int) -> None:
        if seconds > self.slo_s:
            if self._clock >= self._calm:
                self.limit = max(1.0, self.limit * self.backoff)
                self._calm = self._clock + self.slo_s
        elif 2 * inside >= self.limit:
            self.limit = min(float(self.most), self.limit + 1 / self.limit)


class GradientLimit(ConcurrencyLimit):
    """limit <- limit * (least time / time) + sqrt(limit), smoothed (Netflix's concurrency-limits).

    As long as jobs take as long as the fastest did, the limit grows by its root, the queue it allows for; once they
    take longer, because they wait, it shrinks in proportion. Times are per output token plus one, for jobs are unlike;
    a whole limit of jobs moves it by a `smoothing` share of the way: each of them left before it could see what the
    others did, so more would swing. It grows only while at least half of it is used.
    """

    def __init__(self, limit: int = 32, smoothing: float = 0.2, most: int = 4096) -> None:
        super().__init__(limit)
        if not 0 < smoothing <= 1 or most < limit:
            raise BadInput("GradientLimit needs smoothing above 0 and at most 1, and most >= limit.")
        self.smoothing = smoothing
        self.most = most
        self._least = inf

    def over(self, job: Job, tokens_out: int, now: float) -> None:
        since = self._since.pop(job.id, None)
        if since is not None and tokens_out:
            self.learn((now - since) / (tokens_out + 1), len(self._since) + 1)

    def learn(self, seconds: float, inside: int) -> None:
        if not seconds > 0:
            return
        self._least = min(self._least, seconds)
        gradient = max(0.5, self._least / seconds)
        wanted = self.limit * gradient + sqrt(self.limit)
        if wanted > self.limit and 2 * inside < self.limit:
            return
        moved = self.limit + (wanted - self.limit) * self.smoothing / self.limit
        self.limit = min(float(self.most), max(1.0, moved))

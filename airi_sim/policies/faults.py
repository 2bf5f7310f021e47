"""What happens to a job whose server died."""

from __future__ import annotations

from math import inf

from airi_sim.core.errors import BadInput
from airi_sim.core.types import Job, Verdict


class Retry:
    """Route the job again, at most `limit` times; retry k waits `backoff_s` * 2**(k-1) seconds (0: at once).

    Doubling as in TCP and gRPC; without jitter, since the jobs of one dead server are spread by the router anyway.
    """

    def __init__(self, limit: int = 3, backoff_s: float = 0.0) -> None:
        if limit < 1:
            raise BadInput(f"limit of Retry is {limit}: allow at least 1 retry, or choose policy/fault=fail.")
        if not 0 <= backoff_s < inf:
            raise BadInput(f"backoff_s of Retry is {backoff_s} s and must be 0 or more, and finite.")
        self.limit = limit
        self.backoff_s = backoff_s

    def lost(self, job: Job, attempt: int, now: float) -> Verdict:
        if attempt > self.limit:
            return Verdict(False, None, f"its server died and {self.limit} retries were used up")
        if not self.backoff_s:
            return Verdict(True)
        return Verdict(False, self.backoff_s * 2.0 ** (attempt - 1), "its server died")


class Fail:
    """The job fails with its server."""

    def lost(self, job: Job, attempt: int, now: float) -> Verdict:
        return Verdict(False, None, "its server died")

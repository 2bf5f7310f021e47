"""Routing between unlike hardware: the cheapest that keeps the promise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from airi_sim.core.errors import BadInput, unknown
from airi_sim.core.protocols import View
from airi_sim.core.types import Job
from airi_sim.policies.routers.common import alive


class Profile(NamedTuple):
    """What a replica costs and does: dollars an hour, prompt tokens per second, and the seconds of a pass: `pass_s` and
    `sequence_s` more for each job. The defaults are of an 8B model on an H100."""

    usd_per_hour: float = 3.0
    prompt_tokens_per_s: float = 25_000.0
    pass_s: float = 0.008
    sequence_s: float = 2e-5

    def ttft_s(self, tokens: int) -> float:
        """Until so many prompt tokens, waiting ones included, are done."""
        return tokens / self.prompt_tokens_per_s

    def tpot_s(self, jobs: int) -> float:
        """A pass of so many jobs."""
        return self.pass_s + self.sequence_s * jobs

    def usd(self, tokens: int, output: int, jobs: int) -> float:
        """A request of so many tokens, which shares its passes with the other jobs."""
        seconds = tokens / self.prompt_tokens_per_s + output * self.tpot_s(jobs) / jobs
        return seconds * self.usd_per_hour / 3600


def profile(of: str, fields: Mapping[str, float]) -> Profile:
    """A Profile from a config; BadInput if it has other keys, or a figure that cannot be."""
    for name, value in fields.items():
        if name not in Profile._fields:
            raise unknown(f"key of the profile of {of}", name, Profile._fields)
        if not value >= 0 or (name == "prompt_tokens_per_s" and not value):
            raise BadInput(f"{name}={value} in the profile of {of} is not possible: figures must be positive.")
    return Profile(**fields)


class Offer(NamedTuple):
    """What a job would get: dollars, and whether within its objectives, else how late."""

    late: bool
    price: float
    ttft_s: float


class HeteroCost:
    """The cheapest replica that is predicted to keep the SLO; if none is, the one with the first token soonest.

    After Melange (Griggs et al., 2024), decided a request instead of a size bucket: short ones fit on cheap hardware,
    long ones and busy hours on fast one. `profiles`: a mapping of `Profile` a replica, in order (null: all alike).
    Output counts as the budget, at most `expected` tokens. Ties go to the lowest index.
    """

    def __init__(
        self,
        profiles: Sequence[Mapping[str, float]] | None = None,
        ttft_s: float = 2.0,
        tpot_s: float = 0.05,
        expected: int = 256,
    ) -> None:
        if not ttft_s > 0 or not tpot_s > 0 or expected < 1:
            raise BadInput("HeteroCost needs ttft_s > 0 and tpot_s > 0 seconds, and expected >= 1 tokens.")
        self.profiles = [profile(f"replica {i}", fields) for i, fields in enumerate(profiles or [])]
        self.ttft_s = ttft_s
        self.tpot_s = tpot_s
        self.expected = expected

    def route(self, job: Job, view: View, now: float) -> int:
        profiles = self.profiles or [Profile()] * view.n
        if len(profiles) != view.n:
            raise BadInput(f"HeteroCost has {len(profiles)} profiles for {view.n} replicas: give one for each.")
        queued, jobs = view.column("queued_tokens", now), view.column("outstanding", now)
        offers = {
            i: self.offer(job, profiles[i], queued[i], job.tokens - view.matched(i, job), jobs[i] + 1)
            for i in alive(view.column("up", now))
        }
        return min(offers, key=lambda i: (*offers[i], i))

    def offer(self, job: Job, it: Profile, queued: int, tokens: int, jobs: int) -> Offer:
        """What the job gets there: `queued` prompt tokens come before `tokens` of its own that are not in memory, and
        `jobs` jobs share the passes."""
        ttft_s = it.ttft_s(queued + tokens)
        late = ttft_s > self.ttft_s or it.tpot_s(jobs) > self.tpot_s
        price = it.usd(tokens, min(job.budget, self.expected), jobs)
        return Offer(late, ttft_s if late else price, ttft_s)

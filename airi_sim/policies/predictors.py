"""How many output tokens a job will emit. Nobody knows that in advance (law 2), so what comes closest to the truth has
to be asked for by name.

`History` learns from what has finished, as a server in production can. `Perfect`, `Noisy` and `Bucketed` know the true
length: the workbench tells them (`reveal`), and a run that uses one says so among its warnings. Each replica has a
predictor of its own; a prediction for a job depends on nothing but the job (and, for `History`, what finished before).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from math import exp, inf
from random import Random
from typing import Literal, cast

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import Predictor
from airi_sim.core.types import Job

Truth = Callable[[Job], int]
"""The true output tokens of a job."""


def optional(predictor: object | None, owner: str) -> Predictor | None:
    """A predictor given to a policy that does without one if there is none; BadInput if it cannot predict."""
    if predictor is not None and not callable(getattr(predictor, "predict", None)):
        raise BadInput(f"the predictor of {owner} must have a method predict(job), and {predictor!r} has none.")
    return cast("Predictor | None", predictor)


def total(job: Job, predictor: Predictor | None) -> int:
    """Output tokens of a job, those behind it included: its budget, or what is predicted if that is less."""
    return job.budget if predictor is None else min(job.budget, round(predictor.predict(job)))


def _untold(job: Job) -> int:
    raise BadInput(
        f"the true length of job {job.id} is known in a run only: call reveal(truth) of the predictor first, or use "
        "airi_sim.policies.predictors.History."
    )


class Perfect:
    """The true length: an experiment, and the bound for every predictor. No system has it."""

    def __init__(self) -> None:
        self._truth: Truth = _untold

    def reveal(self, truth: Truth) -> None:
        """Called once, before the run, by whoever has the script of the run."""
        self._truth = truth

    def predict(self, job: Job) -> float:
        return self._truth(job)

    def learn(self, job: Job, tokens_out: int) -> None:
        """There is nothing to learn."""


class Noisy(Perfect):
    """The true length times exp(sigma * z), z standard normal, drawn once a job: the same in every world and order.

    sigma = 0.5 is off by a factor of 1.6 in a third of the jobs, about what learned regressors do on chat traffic.
    """

    def __init__(self, seed: int, sigma: float = 0.5) -> None:
        if not 0 <= sigma < inf:
            raise BadInput(f"sigma of Noisy is {sigma} and must be 0 or more.")
        super().__init__()
        self.sigma, self.seed = sigma, seed

    def predict(self, job: Job) -> float:
        return max(1.0, self._truth(job) * exp(self.sigma * _draw(self.seed, job).gauss(0.0, 1.0)))


class Bucketed(Perfect):
    """The upper edge of the bucket the true length falls into, as a classifier would say it (S3, Jin et al., NeurIPS
    2023); with probability 1 - `accuracy` a bucket beside it. `edges` in tokens, ascending; longer ones count as the
    last edge doubled."""

    def __init__(
        self, seed: int, edges: Sequence[int] = (16, 32, 64, 128, 256, 512, 1024, 2048), accuracy: float = 1.0
    ) -> None:
        if not edges or list(edges) != sorted({*edges}) or edges[0] < 1:
            raise BadInput(f"edges of Bucketed are {list(edges)} and must be ascending whole numbers from 1 on.")
        if not 0 <= accuracy <= 1:
            raise BadInput(f"accuracy of Bucketed is {accuracy} and must be between 0 and 1.")
        super().__init__()
        self.edges, self.accuracy, self.seed = [*edges, 2 * edges[-1]], accuracy, seed

    def predict(self, job: Job) -> float:
        last = len(self.edges) - 1
        bucket = min(bisect_left(self.edges, self._truth(job)), last)
        pick = _draw(self.seed, job)
        if pick.random() >= self.accuracy:
            bucket += 1 if bucket == 0 else -1 if bucket == last else pick.choice((-1, 1))
        return self.edges[bucket]


class History:
    """The mean output of what finished before, by the field `by` of a job ("" for all alike); `first` tokens until
    something has. `decay` is the weight of the newest observation once there are 1 / decay of them (an exponential
    mean); 0 keeps the mean of all."""

    def __init__(
        self,
        by: Literal["", "tenant", "session", "model", "kind"] = "tenant",
        first: float = 128.0,
        decay: float = 0.05,
    ) -> None:
        if not 0 <= decay < 1:
            raise BadInput(f"decay of History is {decay} and must be from 0 to below 1.")
        if not 0 < first < inf:
            raise BadInput(f"first of History is {first} tokens and must be more than 0.")
        self.by, self.first, self.decay = by, first, decay
        self._means: dict[str, tuple[int, float]] = {}

    def predict(self, job: Job) -> float:
        return min(self._means.get(self._group(job), (0, self.first))[1], job.budget)

    def learn(self, job: Job, tokens_out: int) -> None:
        group = self._group(job)
        seen, mean = self._means.get(group, (0, 0.0))
        self._means[group] = seen + 1, mean + max(self.decay, 1 / (seen + 1)) * (tokens_out - mean)

    def _group(self, job: Job) -> str:
        return str(getattr(job, self.by)) if self.by else ""


def _draw(seed: int, job: Job) -> Random:
    """Random numbers of a job, the same whenever they are asked for."""
    return Random(seed << 64 | job.id)

"""Small jobs first. What is small is the prompt, which is known, or the output, which a predictor has to guess."""

from __future__ import annotations

from typing import Any

from airi_sim.core.protocols import Draft, Predictor
from airi_sim.core.types import Horizon, Job
from airi_sim.policies.queues.estimates import Cost, checked
from airi_sim.policies.queues.waiting import UNBOUNDED, Keyed, emitted


class Sjf(Keyed):
    """Shortest job first, not preemptive (SSJF, arXiv:2306.03503): fewest tokens to process, else fewest predicted.

    `predictor` None orders by `job.tokens`, else by `predictor.predict(job)`, asked once when the job comes. A
    preempted job is as long as what it must process again. Long jobs may starve. Timeless.
    """

    def __init__(self, predictor: Predictor | None = None) -> None:
        super().__init__()
        self.predictor = None if predictor is None else checked(predictor, "Sjf")

    def key(self, job: Job, now: float) -> Any:
        return job.tokens if self.predictor is None else self.predictor.predict(job)

    def over(self, job: Job, tokens_out: int, now: float) -> None:
        """What predictors learn from."""
        if self.predictor is not None:
            self.predictor.learn(job, tokens_out)


class PredictedSjf(Keyed):
    """Shortest predicted work first, not preemptive (S3, Jin et al., NeurIPS 2023; PiA, Zheng et al., NeurIPS 2023):
    `w_in` a token to process plus `w_out` a predicted token to come. `predictor` None learns from what finished
    (History). Asked once, when the job comes; a wrong guess is never corrected. Timeless."""

    def __init__(self, predictor: Predictor | None = None, w_in: float = 0.0, w_out: float = 1.0) -> None:
        super().__init__()
        self.cost = Cost("PredictedSjf", w_in, w_out, predictor)
        self.predictor = self.cost.predictor

    def key(self, job: Job, now: float) -> Any:
        return self.cost(job)

    def over(self, job: Job, tokens_out: int, now: float) -> None:
        """What predictors learn from."""
        self.predictor.learn(job, tokens_out)


class Srpt(Keyed):
    """Shortest remaining processing time (Schrage 1968) by predicted output tokens; no other order has fewer jobs in
    the system if the prediction is right. Under a batcher that preempts (`preemptive`) the head takes the place of the
    running job with the most left, and that job starts again from its tokens so far.

    `predictor` None learns from what finished (History). A job that outlives its prediction has 1 token left. Timeless
    while it waits; between arrivals what runs only shrinks, so whom the head does not beat now it never will.
    """

    def __init__(self, predictor: Predictor | None = None) -> None:
        super().__init__()
        self.predictor = checked(predictor, "Srpt")
        self._size: dict[int, float] = {}
        self._most = 0.0

    def key(self, job: Job, now: float) -> Any:
        if job.id not in self._size:
            self._size[job.id] = self.predictor.predict(job)
        return self._left(job, emitted(job))

    def pop(self, now: float) -> Job:
        self._most = max(self._most, self.waiting.top()[0])
        return super().pop(now)

    def remove(self, job: Job, now: float) -> None:
        """Forget a waiting job that was cancelled."""
        super().remove(job, now)
        del self._size[job.id]

    def over(self, job: Job, tokens_out: int, now: float) -> None:
        """What predictors learn from."""
        self._size.pop(job.id, None)
        self.predictor.learn(job, tokens_out)

    def contest(self, draft: Draft, now: float) -> tuple[Job | None, Horizon]:
        """The running job with the most left, if that is more than the head has. `_most` is a bound on it that holds
        without looking: those who run only shrink, and whoever is admitted counts when popped."""
        mine = self.waiting.top()[0]
        if mine >= self._most or not draft.preemptible:
            return None, UNBOUNDED
        left, _, worst = max((self._left(job, draft.attained(job)), job.id, job) for job in draft.preemptible.values())
        if len(draft.preemptible) == len(draft.running):  # who is on its way elsewhere may come back
            self._most = left
        return (worst if left > mine else None), UNBOUNDED

    def _left(self, job: Job, tokens_out: int) -> float:
        return max(1.0, self._size.get(job.id, 0.0) - tokens_out)

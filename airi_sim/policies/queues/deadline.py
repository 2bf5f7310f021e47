"""By deadline (`job.deadline`, absolute seconds; jobs without one come last, by arrival)."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

from airi_sim.core.protocols import Draft, Predictor
from airi_sim.core.types import FOREVER, Horizon, Job
from airi_sim.policies.queues.estimates import Cost, positive
from airi_sim.policies.queues.waiting import UNBOUNDED, Keyed


class Edf(Keyed):
    """Earliest deadline first (Liu and Layland, J. ACM 1973). On one machine with preemption (`preemptive`) it meets
    all deadlines if any order does; in an overload it serves those who are late already and makes the others late too.
    Timeless: deadlines do not move, and whoever runs with a later one than the head makes way at once."""

    def key(self, job: Job, now: float) -> Any:
        return job.deadline, job.arrived

    def contest(self, draft: Draft, now: float) -> tuple[Job | None, Horizon]:
        """The running job with the latest deadline, if that is later than the head's."""
        if not draft.preemptible:
            return None, UNBOUNDED
        deadline, _, worst = max((job.deadline, job.id, job) for job in draft.preemptible.values())
        return (worst if deadline > self.waiting.top()[3].deadline else None), UNBOUNDED


class Slack(Keyed):
    """Least slack first (least laxity, Mok 1983): deadline - now - what it still needs, estimated as `prompt_s` seconds
    a token to process and `token_s` a predicted token to come. `predictor` None learns from what finished (History).

    Not preemptive: what runs loses no slack and what waits does, so they would take turns for ever. Timeless: the slack
    of all who wait shrinks alike.
    """

    def __init__(self, prompt_s: float = 1e-4, token_s: float = 0.02, predictor: Predictor | None = None) -> None:
        super().__init__()
        self.cost = Cost("Slack", prompt_s, token_s, predictor)
        self.predictor = self.cost.predictor

    def key(self, job: Job, now: float) -> Any:
        return job.deadline - self.cost(job), job.arrived

    def over(self, job: Job, tokens_out: int, now: float) -> None:
        """What predictors learn from."""
        self.predictor.learn(job, tokens_out)


class Lars:
    """Length-aware relative slack (Medha, Agrawal et al., arXiv:2409.17264): (deadline - now - prefill left) / whole
    prefill, smallest first, a prefill lasting `prompt_s` seconds a token. Divided by its length, the slack of a long
    prompt moves slowly: it does not hold up short ones, and yet it becomes urgent in time. Jobs without a deadline are
    due `slack_s` seconds after they came.

    A prompt under way lets the head go first between two chunks, keeping its memory (`overtakes`, asked by batcher
    `preemptive`); who decodes is left alone. Slacks are lines over time whose slope is one over the length, so the head
    is replaced where a steeper line crosses its own. Finding the head is O(jobs that wait), once for each admission.
    """

    timeless = False
    account: str | None = None

    def __init__(self, prompt_s: float = 1e-4, slack_s: float = 10.0) -> None:
        self.prompt_s = positive("prompt_s of Lars", prompt_s)
        self.slack_s = positive("slack_s of Lars", slack_s)
        self._jobs: dict[int, tuple[float, int, Job]] = {}
        self._head: Job | None = None
        self._until = -inf

    def due(self, job: Job) -> float:
        """Its deadline, absolute seconds."""
        return job.deadline if job.deadline < inf else job.arrived + self.slack_s

    def slack(self, job: Job, now: float, filled: int = 0) -> float:
        """Relative slack of a job of whose prompt `filled` tokens are done."""
        return (self.due(job) - now - self.prompt_s * (job.tokens - filled)) / (self.prompt_s * job.tokens)

    def push(self, job: Job, now: float) -> None:
        self._jobs[job.id] = self.due(job), job.tokens, job
        self._until = -inf

    requeue = push

    def peek(self, now: float) -> Job | None:
        if not now <= self._until:
            self._find(now)
        return self._head

    def pop(self, now: float) -> Job:
        job = self.peek(now)
        if job is None:
            raise IndexError("pop from an empty queue")
        self.remove(job, now)
        return job

    def remove(self, job: Job, now: float) -> None:
        """Forget a waiting job: it was admitted or cancelled."""
        del self._jobs[job.id]
        self._until = -inf

    def stable(self, now: float, decoding: Mapping[str, int]) -> Horizon:
        """Until a job with a shorter prompt has less slack than the head."""
        self.peek(now)
        return Horizon(FOREVER, self._until)

    def overtakes(self, draft: Draft, job: Job, now: float) -> bool:
        """Whether the head has less slack than a prompt under way."""
        head = self.peek(now)
        return head is not None and self.slack(head, now) < self.slack(job, now, draft.filled(job))

    def _find(self, now: float) -> None:
        """The head at `now`, and when the first shorter prompt overtakes it."""
        self._head, self._until = None, inf
        if self._jobs:  # slack is (due - now) / (prompt_s * tokens) - 1
            _, head = min([((due - now) / tokens, id) for id, (due, tokens, _) in self._jobs.items()])
            due, tokens, self._head = self._jobs[head]
            crossings = [(d * tokens - due * n) / (tokens - n) for d, n, _ in self._jobs.values() if n < tokens]
            self._until = min(crossings, default=inf)

    def __len__(self) -> int:
        return len(self._jobs)

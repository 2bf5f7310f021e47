"""Who has had least so far goes first: what to do without any prediction. Under a batcher that preempts (`preemptive`)
running jobs make way too; under others only those that lost their memory have had anything."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate
from math import inf
from typing import Any

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import Draft
from airi_sim.core.types import FOREVER, Horizon, Job
from airi_sim.policies.queues.estimates import positive
from airi_sim.policies.queues.waiting import UNBOUNDED, Keyed, Patient, emitted


class Las(Keyed):
    """Least attained service first, also called foreground-background (Nuyens and Wierman, Performance Evaluation
    2008): fewest output tokens so far, then the earlier arrival. The best order there is without predictions where
    outputs vary a lot, and bad where they hardly do.

    A running job makes way for the head once it is `quantum` tokens ahead of it; 1 is the discipline of the books,
    larger ones preempt less. Timeless while it waits; the horizon of a contest is the pass in which the first running
    job is that far ahead.
    """

    def __init__(self, quantum: int = 64) -> None:
        super().__init__()
        if quantum < 1:
            raise BadInput(f"quantum of Las is {quantum} and must be at least 1 token.")
        self.quantum = quantum

    def key(self, job: Job, now: float) -> Any:
        return emitted(job), job.arrived

    def contest(self, draft: Draft, now: float) -> tuple[Job | None, Horizon]:
        """The running job that has had most, if it is `quantum` tokens ahead."""
        if not draft.preemptible:
            return None, UNBOUNDED
        had, _, worst = max((draft.attained(job), job.id, job) for job in draft.preemptible.values())
        passes = emitted(self.waiting.top()[3]) + self.quantum - had
        return (worst, UNBOUNDED) if passes <= 0 else (None, Horizon(passes))


class Mlfq(Patient):
    """Multi-level feedback queue (Corbató et al., AFIPS 1962). A job starts at the top; after `quantum` output tokens
    it falls one level, and each of the `levels` lasts `growth` times longer than the one above, the last for ever. The
    highest level goes first, by arrival within. A running job makes way for a head of a higher level (`preemptive`).

    Who waits longer than `patience` seconds goes before all, and runs as if it had just come. So the head can change
    then, and a contest at the pass in which the first running job falls below the head.
    """

    def __init__(self, quantum: int = 64, growth: float = 2.0, levels: int = 8, patience: float = 60.0) -> None:
        name = type(self).__name__
        if quantum < 1 or growth < 1 or levels < 1:
            raise BadInput(f"{name} needs quantum, growth and levels of at least 1, not {quantum}, {growth}, {levels}.")
        super().__init__(positive(f"patience of {name}", patience))
        self.quanta = [int(quantum * growth**level) for level in range(levels - 1)]
        self._bounds = [0, *accumulate(self.quanta)]
        self._risen: dict[int, int] = {}

    def enters(self, job: Job) -> int:
        """The level a job starts at."""
        return 0

    def level(self, job: Job, tokens_out: int) -> int:
        """Its level after so many output tokens."""
        start, had = self._place(job, tokens_out)
        return bisect_right(self._bounds, self._bounds[start] + had) - 1

    def key(self, job: Job, now: float) -> Any:
        return self.level(job, emitted(job)), job.arrived

    def pop(self, now: float) -> Job:
        risen = self.impatient(now)
        if risen is not None:
            self._risen[risen.id] = emitted(risen)
        return super().pop(now)

    def remove(self, job: Job, now: float) -> None:
        """Forget a waiting job that was cancelled."""
        super().remove(job, now)
        self._risen.pop(job.id, None)

    def over(self, job: Job, tokens_out: int, now: float) -> None:
        """It will not come back."""
        self._risen.pop(job.id, None)

    def contest(self, draft: Draft, now: float) -> tuple[Job | None, Horizon]:
        """The running job of the lowest level, the latest among them, if the head is of a higher one."""
        rises = self.oldest.top()[0] + self.patience
        mine = 0 if now > rises else self.waiting.top()[0][0]
        passes, beaten = FOREVER, []
        for job in draft.preemptible.values():
            had = draft.attained(job)
            left = self._stays_for(job, had, mine)
            if left > 0:
                passes = min(passes, left)
            else:
                beaten.append((self.level(job, had), job.arrived, job.id, job))
        if beaten:
            return max(beaten)[3], UNBOUNDED
        return None, Horizon(passes, inf if now > rises else rises)

    def _place(self, job: Job, tokens_out: int) -> tuple[int, int]:
        """(the level it started at, output tokens since)."""
        risen = self._risen.get(job.id)
        return (self.enters(job), tokens_out) if risen is None else (0, tokens_out - risen)

    def _stays_for(self, job: Job, tokens_out: int, level: int) -> int:
        """Tokens until it is below `level`; 0 or less if it is."""
        if level == len(self.quanta):
            return FOREVER
        start, had = self._place(job, tokens_out)
        return self._bounds[level + 1] - self._bounds[start] - had


class SkipJoinMlfq(Mlfq):
    """Skip-join MLFQ (FastServe, Wu et al., arXiv:2305.05920). As `Mlfq`, but a job whose prompt alone would use up the
    quantum of the top joins further down: at the first level whose quantum covers its prefill, `prompt_rate` prompt
    tokens taking as long as one output token. Who starves (`patience`) is promoted to the top."""

    def __init__(
        self,
        quantum: int = 64,
        growth: float = 2.0,
        levels: int = 8,
        patience: float = 60.0,
        prompt_rate: float = 200.0,
    ) -> None:
        super().__init__(quantum, growth, levels, patience)
        self.prompt_rate = positive("prompt_rate of SkipJoinMlfq", prompt_rate)

    def enters(self, job: Job) -> int:
        return bisect_left(self.quanta, job.prompt / self.prompt_rate)

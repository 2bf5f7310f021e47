"""Iteration-level batching that admits by the memory a job will need, not by what it needs at first."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import Draft, Predictor, Queue
from airi_sim.core.types import FOREVER, Horizon, Job
from airi_sim.policies.batchers.common import at_least_one, continue_prompts
from airi_sim.policies.predictors import optional, total


class Continuous:
    """Iteration-level batching with reserved memory (Orca; Yu et al., OSDI 2022).

    A job is admitted when the blocks for its prompt and all output it may emit can be set aside: at most its budget,
    and at most `max_output` tokens (null: the budget alone, which without one is the model's limit). Then nobody loses
    its memory half way, and most of it lies idle; that waste is what paged attention was invented for. Whoever emits
    more than `max_output` takes its chance with the evictor.
    """

    greedy = True

    def __init__(self, max_output: int | None = None) -> None:
        self.max_output = at_least_one("max_output", max_output, "output tokens to reserve")
        self._blocks: dict[int, int] = {}

    def form(self, draft: Draft, queue: Queue, now: float) -> None:
        draft.decode(now)
        continue_prompts(draft, now)
        while not draft.preempted and draft.budget > 0 and draft.seats > 0:
            job = queue.peek(now)
            if job is None or not self._fits(job, draft) or not draft.admit(job):
                return
            queue.pop(now)

    def _fits(self, job: Job, draft: Draft) -> bool:
        if self._blocks.keys() != draft.running.keys():
            known = self._blocks
            self._blocks = {i: known.get(i) or self._need(one, draft) for i, one in draft.running.items()}
        return not self._blocks or sum(self._blocks.values()) + self._need(job, draft) <= draft.total

    def _need(self, job: Job, draft: Draft) -> int:
        output = job.budget if self.max_output is None else min(job.budget, self.max_output)
        return -(-(max(job.tokens, job.prompt + output)) // draft.block)


Future = tuple[int, int]
"""Passes that a job still goes on, tokens that it holds."""


def longest_first(future: Future) -> Future:
    """By which jobs are in order for `peak`."""
    return -future[0], -future[1]


def peak(jobs: Iterable[Future]) -> int:
    """The most tokens in memory at any time, if jobs that hold `held` tokens each go on for `left` more passes.

    `jobs` are (left, held), longest first. Just before job i ends, it and those that last longer have grown by left_i
    each, and the others are gone.
    """
    most = held_so_far = 0
    for i, (left, held) in enumerate(jobs, 1):
        held_so_far += held
        most = max(most, held_so_far + i * left)
    return most


class PastFuture:
    """Admits a job if all can keep their memory to the end (LightLLM; Gong et al., ASPLOS 2025).

    With how many tokens each job still emits, the peak of memory to come is known; the head of the queue is let in if
    that stays below the KV blocks less a `margin` share (the last block of a job is half empty). `predictor` says how
    many a job emits (null: its budget); whoever outlives its prediction counts as if it emitted one more. Every `every`
    decode passes somebody is let in, or at once if nobody decodes.
    """

    greedy = False

    def __init__(self, predictor: Predictor | None = None, margin: float = 0.03, every: int = 10) -> None:
        if not 0 <= margin < 1:
            raise BadInput(f"policy.batcher.margin={margin}: it is a share of the KV blocks, from 0 to below 1.")
        self.predictor = optional(predictor, "PastFuture")
        self.margin = margin
        self.every = at_least_one("every", every, "decode passes between admissions") or 1
        self._next = 0

    def form(self, draft: Draft, queue: Queue, now: float) -> None:
        draft.decode(now)
        continue_prompts(draft, now)
        if draft.decoding and draft.passes < self._next:
            draft.closed = True
        elif not draft.preempted and draft.seats > 0 and queue.peek(now) is not None:
            self._next = draft.passes + self.every
            self._admit(draft, queue, now)

    def _admit(self, draft: Draft, queue: Queue, now: float) -> None:
        room = int(draft.total * (1 - self.margin)) * draft.block
        jobs = sorted([self._future(job, draft) for job in draft.running.values()], reverse=True)
        while draft.budget > 0 and draft.seats > 0 and (job := queue.peek(now)) is not None:
            insort(jobs, self._future(job, draft), key=longest_first)
            if (len(jobs) > 1 and peak(jobs) > room) or not draft.admit(job):
                return
            queue.pop(now)

    def _future(self, job: Job, draft: Draft) -> Future:
        """Tokens it still emits, and tokens it holds once its prompt is done."""
        out = draft.attained(job)
        return max(1, total(job, self.predictor) - out), job.prompt + out

    def stable(self, draft: Draft, queue: Queue, now: float) -> Horizon:
        """Until somebody may be let in again. With nobody in line that changes nothing."""
        wait = self._next - draft.passes
        return Horizon(wait if wait > 0 else FOREVER)

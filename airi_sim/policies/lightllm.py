"""The batcher of LightLLM and of what was built on it (S-LoRA, the VTC artifact)."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence

from airi_sim.core.protocols import Draft, Predictor, Queue
from airi_sim.core.types import FOREVER, Horizon, Job
from airi_sim.policies.batchers.common import continue_prompts
from airi_sim.policies.batchers.iteration import PrefillCadence
from airi_sim.policies.batchers.memory import Future, longest_first, peak
from airi_sim.policies.predictors import optional, total


class LightLlm(PrefillCadence):
    """Prompts alone in a pass, after at least `passes` passes of decodes, and only those that can stay to the end.

    A job is let in if the peak of memory to come stays below the KV of the server, with every job emitting all of its
    budget, or what `predictor` says if that is less (router of S-LoRA, Sheng et al., MLSys 2024; LightLLM has the same
    with a learned length). Whoever is refused is asked again before every pass. Without budgets or a predictor jobs run
    one by one. The engine does not chunk prompts: use it with server.chunked_prefill=false;
    server.max_num_batched_tokens bounds a pass of prompts.
    """

    def __init__(self, passes: int = 10, predictor: Predictor | None = None) -> None:
        super().__init__(passes)
        self.predictor = optional(predictor, "LightLlm")

    def prompts(self, draft: Draft, queue: Queue, now: float) -> None:
        """As for `PrefillCadence`; only who can stay is let in."""
        continue_prompts(draft, now)
        jobs = self._running(draft)
        while not draft.preempted and draft.budget > 0 and draft.seats > 0 and (job := queue.peek(now)) is not None:
            insort(jobs, self._new(job), key=longest_first)
            if not _fits(jobs, draft) or not draft.admit(job):
                return
            queue.pop(now)

    def stable(self, draft: Draft, queue: Queue, now: float) -> Horizon:
        """Until prompts are due, and then until the head may fit: that needs no stop. What is held at the peak falls by
        one token a pass for each job that does not decode and lasts longer than those that do: the newcomer, and
        prompts under way. It cannot fall faster."""
        wait = self._due - draft.passes
        head = queue.peek(now)
        if wait > 0 or head is None or draft.seats <= 0:
            return Horizon(wait if wait > 0 else FOREVER)
        over = peak(sorted([*self._running(draft), self._new(head)], reverse=True)) - _room(draft)
        return Horizon(max(1, over // (1 + len(draft.partial)) + 1))

    def _running(self, draft: Draft) -> list[Future]:
        """Longest first."""
        jobs = [(job, draft.attained(job)) for job in draft.running.values()]
        left = [(max(0, total(job, self.predictor) - out - 1), job.prompt + out) for job, out in jobs]
        return sorted(left, key=longest_first)

    def _new(self, job: Job) -> Future:
        """A job that waits, once its prompt is done; one that was preempted has emitted tokens already."""
        held = job.tokens + 1
        return max(0, total(job, self.predictor) - (held - job.prompt)), held


def _room(draft: Draft) -> int:
    """Tokens that the peak must stay below."""
    return draft.total * draft.block


def _fits(jobs: Sequence[Future], draft: Draft) -> bool:
    return len(jobs) == 1 or peak(jobs) < _room(draft)

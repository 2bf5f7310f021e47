"""Batches in which the queue decides who keeps running: how the orders of the books that preempt run on a model server.

A queue may want the head to take the place of somebody who runs. It says so by `contest(draft, now)`: who should make
way, or for how long nobody should. Prompts under way may be overtaken by the head and keep their memory:
`overtakes(draft, job, now)`. Both are optional; a queue that has neither is served as by `ChunkedPrefill`.
"""

from __future__ import annotations

from math import inf, nextafter

from airi_sim.core.errors import BadInput, PolicyError
from airi_sim.core.protocols import Draft, Queue
from airi_sim.core.types import FOREVER, Horizon, Job

UNBOUNDED = Horizon(FOREVER)


class Preemptive:
    """Chunked prefill in which running jobs make way for the head of the queue if the queue says so.

    Decodes first, then prompts under way (those that the head overtakes come after it), then admissions. When the head
    finds no seat or no memory, the queue names who makes way: that job loses its memory, waits again, and starts anew
    from its tokens so far (recompute), until the head fits or nobody else has to. A pass in which the evictor took
    memory admits nobody. `tokens`: budget of a pass (null: the server's max_num_batched_tokens).

    Passes without prompts stay equal for as long as the queue says that nobody makes way (`stable`).
    """

    greedy = False
    preempts = True

    def __init__(self, tokens: int | None = None) -> None:
        if tokens is not None and tokens < 1:
            raise BadInput(f"policy.batcher.tokens={tokens}: the token budget of a pass must be at least 1 (or null).")
        self.tokens = tokens
        self._horizon = UNBOUNDED

    def form(self, draft: Draft, queue: Queue, now: float) -> None:
        self._horizon = UNBOUNDED
        if self.tokens is not None and self.tokens < draft.budget:
            draft.budget = self.tokens
        running = len(draft.running)
        draft.decode(now)
        overtaken = self._chunks(draft, queue, now)
        if len(draft.running) == running:
            self._admit(draft, queue, now)
        for job in overtaken:
            if job.id in draft.running:
                draft.chunk(job, now)

    def stable(self, draft: Draft, queue: Queue, now: float) -> Horizon:
        """What the queue said when the head found no room; one pass while a prompt is under way. Where nobody decodes
        (prompts are done and wait to move on) the next draft is not a pass later but when this says, so just after what
        the queue said, which still holds at that moment."""
        if draft.partial:
            return Horizon()
        passes, until = self._horizon
        return self._horizon if draft.decoding else Horizon(passes, nextafter(until, inf))

    def _chunks(self, draft: Draft, queue: Queue, now: float) -> list[Job]:
        """Prompts under way go on, except those that the head overtakes: these are returned."""
        overtaken = []
        ask = getattr(queue, "overtakes", None) if draft.partial and draft.seats > 0 else None
        for job in tuple(draft.partial):
            if job.id not in draft.running:
                continue
            if ask is not None and ask(draft, job, now):
                overtaken.append(job)
            else:
                draft.chunk(job, now)
        return overtaken

    def _admit(self, draft: Draft, queue: Queue, now: float) -> None:
        """From the head of the queue until the budget runs out or nobody makes way any more."""
        contest = getattr(queue, "contest", None)
        admitted: set[int] = set()
        while draft.budget > 0 and (job := queue.peek(now)) is not None:
            if draft.seats > 0 and draft.admit(job):
                queue.pop(now)
                admitted.add(job.id)
                continue
            loser = None
            if contest is not None:
                loser, self._horizon = contest(draft, now)
            if loser is None:
                return
            if loser.id in admitted:
                raise PolicyError(_circles(queue, loser))
            draft.preempt(loser, now)


def _circles(queue: Queue, loser: Job) -> str:
    return (
        f"policy {type(queue).__name__} preempts in circles: job {loser.id} is to make way in the pass in which it was "
        "admitted; the head may only contest those it goes before."
    )

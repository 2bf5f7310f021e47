"""What runs in the next pass. Each composes it through a Draft (core.protocols) and never loops over decoding jobs."""

from __future__ import annotations

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import Draft, Queue


def admit_waiting(draft: Draft, queue: Queue, now: float) -> None:
    """Admit from the head of the queue until a seat, the budget or the memory runs out. Nobody is skipped."""
    while draft.budget > 0 and draft.seats > 0:
        job = queue.peek(now)
        if job is None or not draft.admit(job):
            return
        queue.pop(now)


def _checked(tokens: int | None) -> int | None:
    if tokens is not None and tokens < 1:
        raise BadInput(f"policy.batcher.tokens={tokens}: the token budget of a pass must be at least 1 (or null).")
    return tokens


class ChunkedPrefill:
    """Decodes first, then prompts under way, then admissions, in one pass under a token budget.

    The unified loop of vLLM v1, after Sarathi-Serve (Agrawal et al., OSDI 2024): decodes are never skipped, a pass in
    which somebody was preempted admits nobody. `tokens`: budget of a pass (null: the server's max_num_batched_tokens).
    """

    greedy = True

    def __init__(self, tokens: int | None = None) -> None:
        self.tokens = _checked(tokens)

    def form(self, draft: Draft, queue: Queue, now: float) -> None:
        if self.tokens is not None and self.tokens < draft.budget:
            draft.budget = self.tokens
        draft.decode(now)
        if draft.partial:
            for job in tuple(draft.partial):
                if job.id in draft.running:
                    draft.chunk(job, now)
        if not draft.preempted and len(queue):
            admit_waiting(draft, queue, now)


class PrefillFirst:
    """A pass is either prompts or decodes, and prompts win (vLLM before 0.6: vLLM v0's default scheduler).

    `watermark` share of the KV blocks is kept free for the decodes as long as there are any.
    """

    greedy = True

    def __init__(self, tokens: int | None = None, watermark: float = 0.01) -> None:
        self.tokens = _checked(tokens)
        if not 0 <= watermark < 1:
            raise BadInput(f"policy.batcher.watermark={watermark}: it is a share of the KV blocks, from 0 to below 1.")
        self.watermark = watermark

    def form(self, draft: Draft, queue: Queue, now: float) -> None:
        whole = draft.budget
        if self.tokens is not None and self.tokens < draft.budget:
            draft.budget = self.tokens
        kept = int(self.watermark * draft.total) if draft.decoding else 0
        draft.available -= kept
        for job in tuple(draft.partial):
            if job.id in draft.running:
                draft.chunk(job, now)
        if not draft.preempted:
            admit_waiting(draft, queue, now)
        draft.available += kept
        if not draft.sliced:
            draft.budget = whole
            draft.decode(now)


class Static:
    """Request-level batching (FasterTransformer): a batch is admitted when the last one is over, and runs to its end.

    `size` jobs at most (null: the server's max_num_seqs). On a server where nobody decodes it takes what waits.
    """

    greedy = True

    def __init__(self, size: int | None = None) -> None:
        if size is not None and size < 1:
            raise BadInput(f"policy.batcher.size={size}: a batch must hold at least 1 job (or null).")
        self.size = size

    def form(self, draft: Draft, queue: Queue, now: float) -> None:
        for job in tuple(draft.partial):
            if job.id in draft.running:
                draft.chunk(job, now)
        if draft.sliced:
            draft.closed = True
        elif draft.decoding:
            draft.decode(now)
            draft.closed = True
        else:
            self._admit(draft, queue, now)

    def _admit(self, draft: Draft, queue: Queue, now: float) -> None:
        left = self.size or draft.seats
        while left and draft.budget > 0 and draft.seats > 0:
            job = queue.peek(now)
            if job is None or not draft.admit(job):
                return
            queue.pop(now)
            left -= 1

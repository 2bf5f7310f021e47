"""Iteration-level batching: jobs come and go between passes, and the rule says how prompts and decodes share them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import sqrt

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import Draft, Queue
from airi_sim.core.types import FOREVER, Horizon
from airi_sim.policies.batchers.common import (
    above_zero,
    admit_waiting,
    at_least_one,
    continue_prompts,
    not_negative,
    prompts,
)


class ChunkedPrefill:
    """Decodes first, then prompts under way, then admissions, in one pass under a token budget.

    The unified loop of vLLM v1, after Sarathi-Serve (Agrawal et al., OSDI 2024): decodes are never skipped, a pass in
    which somebody was preempted admits nobody. `tokens`: budget of a pass (null: the server's max_num_batched_tokens).
    """

    greedy = plain = True

    def __init__(self, tokens: int | None = None) -> None:
        self.tokens = at_least_one("tokens", tokens, "the token budget of a pass")

    def form(self, draft: Draft, queue: Queue, now: float) -> None:
        if self.tokens is not None and self.tokens < draft.budget:
            draft.budget = self.tokens
        draft.decode(now)
        if draft.partial:
            continue_prompts(draft, now)
        if not draft.preempted:
            admit_waiting(draft, queue, now)


class PrefillFirst:
    """A pass is either prompts or decodes, and prompts win (vLLM before 0.6: vLLM v0's default scheduler).

    `watermark` share of the KV blocks is kept free for the decodes as long as there are any.
    """

    greedy = plain = True

    def __init__(self, tokens: int | None = None, watermark: float = 0.01) -> None:
        self.tokens = at_least_one("tokens", tokens, "the token budget of a pass")
        if not 0 <= watermark < 1:
            raise BadInput(f"policy.batcher.watermark={watermark}: it is a share of the KV blocks, from 0 to below 1.")
        self.watermark = watermark

    def form(self, draft: Draft, queue: Queue, now: float) -> None:
        whole = draft.budget
        if self.tokens is not None and self.tokens < draft.budget:
            draft.budget = self.tokens
        kept = int(self.watermark * draft.total) if draft.decoding else 0
        draft.available -= kept
        prompts(draft, queue, now)
        draft.available += kept
        if not draft.sliced:
            draft.budget = whole
            draft.decode(now)


class DecodeFirst:
    """A pass is either prompts or decodes, and decodes win: prompts are let in while at most `low` jobs decode.

    With 0 the decode-prioritising end of the range (Sarathi-Serve, OSDI 2024; FasterTransformer does so): smooth
    output, and batches that melt down before anybody new is let in.
    """

    greedy = True

    def __init__(self, low: int = 0) -> None:
        self.low = int(not_negative("low", low, "the number of decoding jobs below which prompts are let in"))

    def form(self, draft: Draft, queue: Queue, now: float) -> None:
        if draft.decoding > self.low:
            draft.decode(now)
            draft.closed = True
            return
        prompts(draft, queue, now)
        if not draft.sliced:
            draft.decode(now)


class PrefillCadence:
    """One pass of prompts for every `passes` passes of decodes (LightLLM's router does so with 10), or at once if
    nobody decodes. Bounds what newcomers may cost those who read along: one prompt pass in so many."""

    greedy = False

    def __init__(self, passes: int = 10) -> None:
        self.passes = at_least_one("passes", passes, "decode passes between two passes of prompts") or 1
        self._due = 0

    def form(self, draft: Draft, queue: Queue, now: float) -> None:
        if draft.decoding and draft.passes < self._due:
            draft.decode(now)
            draft.closed = True
            return
        self.prompts(draft, queue, now)
        if draft.sliced:
            self._due = draft.passes + 1 + self.passes
        else:
            draft.decode(now)

    def prompts(self, draft: Draft, queue: Queue, now: float) -> None:
        """Prompts under way, then admissions: called when prompts are due."""
        prompts(draft, queue, now)

    def stable(self, draft: Draft, queue: Queue, now: float) -> Horizon:
        """Until prompts are due; from then on it is greedy."""
        wait = self._due - draft.passes
        return Horizon(wait if wait > 0 else FOREVER)


class SloChunk:
    """Chunks as large as the time between tokens allows (SOLA, MLSys 2025; adaptive chunking of Medha, 2024).

    A pass is predicted to take `pass_s` + `sequence_s` a decoding job + `block_s` a KV block in use + `token_s` a
    prompt token + `pair_s` a pair of a prompt token and a token before it. What is left of `tbt_s` is filled with
    prompts: much at the beginning of a long one, less as attention looks back on more. At least `least` tokens, so
    that prompts go on under any load; no limit while nobody decodes. The defaults are of an 8B model on an H100.
    """

    greedy = False

    def __init__(
        self,
        tbt_s: float = 0.05,
        least: int = 64,
        pass_s: float = 0.008,
        sequence_s: float = 2e-5,
        block_s: float = 7e-7,
        token_s: float = 4e-5,
        pair_s: float = 1e-9,
    ) -> None:
        self.tbt_s = above_zero("tbt_s", tbt_s, "the time between tokens to keep")
        self.least = at_least_one("least", least, "prompt tokens that a pass may always have") or 1
        self.pass_s = not_negative("pass_s", pass_s, "seconds of an empty pass")
        self.sequence_s = not_negative("sequence_s", sequence_s, "seconds of a decoding job")
        self.block_s = not_negative("block_s", block_s, "seconds of a KV block in use")
        self.token_s = above_zero("token_s", token_s, "seconds of a prompt token")
        self.pair_s = not_negative("pair_s", pair_s, "seconds of a pair of tokens")

    def form(self, draft: Draft, queue: Queue, now: float) -> None:
        if not draft.decoding:
            prompts(draft, queue, now)
            return
        draft.decode(now)
        slack = self._slack(draft)
        for job in tuple(draft.partial):
            if job.id in draft.running:
                _, slack = self._within(slack, draft, draft.filled(job), partial(draft.chunk, job, now))
        while not draft.preempted and draft.seats > 0 and draft.budget > 0:
            head = queue.peek(now)
            if head is None:
                return
            admitted, slack = self._within(slack, draft, 0, partial(draft.admit, head))
            if not admitted:
                return
            queue.pop(now)

    def _within(self, slack: float, draft: Draft, depth: int, take: Callable[[], bool]) -> tuple[bool, float]:
        """Let a prompt take what fits into `slack` seconds; whether it did, and the seconds left."""
        left = draft.budget
        given = min(left, max(self.allowed(depth, slack), 0 if draft.sliced else self.least))
        draft.budget = given
        taken = take()
        tokens = given - draft.budget
        draft.budget = left - tokens
        return taken, slack - tokens * (self.token_s + self.pair_s * (depth + tokens / 2))

    def allowed(self, depth: int, slack: float) -> int:
        """Prompt tokens after `depth` others that take at most `slack` seconds."""
        if slack <= 0:
            return 0
        linear = self.token_s + self.pair_s * depth
        return int(2 * slack / (linear + sqrt(linear * linear + 2 * self.pair_s * slack)))

    def _slack(self, draft: Draft) -> float:
        used = draft.total - draft.available
        return self.tbt_s - self.pass_s - self.sequence_s * draft.decoding - self.block_s * used

    def stable(self, draft: Draft, queue: Queue, now: float) -> Horizon:
        """A pass, if somebody waits for memory: as that fills, chunks shrink, and a smaller one may fit."""
        return Horizon(1 if len(queue) and draft.seats and draft.available else FOREVER)

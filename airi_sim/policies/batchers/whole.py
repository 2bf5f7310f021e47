"""Request-level batching: a batch runs to its end before the next one begins, and the rule says when it begins."""

from __future__ import annotations

from collections.abc import Sequence

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import Draft, Queue
from airi_sim.core.types import FOREVER, Horizon
from airi_sim.policies.batchers.common import above_zero, admit_waiting, at_least_one, continue_prompts, not_negative


def runs(draft: Draft, now: float) -> bool:
    """Whether a batch is under way; if so this pass is drafted: its prompts first, then its decodes."""
    continue_prompts(draft, now)
    if not draft.sliced and draft.decoding:
        draft.decode(now)
    draft.closed = draft.sliced or draft.decoding > 0
    return draft.closed


class Static:
    """Request-level batching (FasterTransformer): a batch is admitted when the last one is over, and runs to its end.

    `size` jobs at most (null: the server's max_num_seqs), and no more than fit into one pass. On a server where nobody
    decodes it takes what waits.
    """

    greedy = True

    def __init__(self, size: int | None = None) -> None:
        self.size = at_least_one("size", size, "jobs of a batch")

    def form(self, draft: Draft, queue: Queue, now: float) -> None:
        if not runs(draft, now):
            admit_waiting(draft, queue, now, self.size or draft.seats)


class GreedyAll:
    """An idle server takes everybody who waits at that moment, at most `cap` (null: the server's max_num_seqs).

    A batch server whose mean delay has a closed form (Inoue, Performance Evaluation 2021). Unlike `Static` it goes on
    admitting over several passes until all who waited at the beginning are in or memory stops it, then decodes.
    """

    greedy = True

    def __init__(self, cap: int | None = None) -> None:
        self.cap = at_least_one("cap", cap, "jobs of a batch")
        self._left = 0

    def form(self, draft: Draft, queue: Queue, now: float) -> None:
        if not draft.running:
            self._left = min(len(queue), self.cap or draft.seats)
        continue_prompts(draft, now)
        if not draft.preempted:
            self._left -= admit_waiting(draft, queue, now, self._left)
        if not draft.sliced:
            self._left = 0
            draft.decode(now)
            draft.closed = True


class SizeTimeout:
    """A batch begins when `size` jobs wait, or the head has waited `timeout_s` (the dynamic batcher of Triton).

    `preferred` sizes are taken as soon as so many wait, the largest that there are. Waiting for company costs latency
    at low load and buys throughput at high load; 0 s takes whatever is there.
    """

    greedy = False

    def __init__(self, size: int = 32, timeout_s: float = 0.01, preferred: Sequence[int] = ()) -> None:
        self.size = at_least_one("size", size, "jobs of a batch") or 1
        self.timeout_s = not_negative("timeout_s", timeout_s, "seconds to wait for company")
        if any(not 1 <= n <= size for n in preferred):
            raise BadInput(f"policy.batcher.preferred={list(preferred)}: sizes must lie between 1 and size={size}.")
        self.preferred = sorted([*preferred, size])

    def form(self, draft: Draft, queue: Queue, now: float) -> None:
        if not runs(draft, now):
            admit_waiting(draft, queue, now, self._size(queue, now))

    def _size(self, queue: Queue, now: float) -> int:
        waiting, head = len(queue), queue.peek(now)
        ready = max([n for n in self.preferred if n <= waiting], default=0)
        if ready or head is None or now < head.arrived + self.timeout_s:
            return ready
        return self.size

    def stable(self, draft: Draft, queue: Queue, now: float) -> Horizon:
        """A batch runs to its end; without one, until the head has waited long enough, unless it has already and there
        is no room for it."""
        head = None if draft.decoding else queue.peek(now)
        if head is None or now >= head.arrived + self.timeout_s:
            return Horizon(FOREVER)
        return Horizon(FOREVER, head.arrived + self.timeout_s)


class Aimd:
    """The size of a batch finds itself: one more after each batch that took at most `slo_s`, a tenth less after each
    that took longer (Clipper; Crankshaw et al., NSDI 2017).

    Only batches that left somebody waiting teach anything: those were as large as allowed, and their end is seen.
    """

    greedy = True

    def __init__(self, slo_s: float = 0.1, start: int = 1, step: int = 1, backoff: float = 0.9) -> None:
        self.slo_s = above_zero("slo_s", slo_s, "seconds a batch may take")
        self.size = float(at_least_one("start", start, "jobs of the first batch") or 1)
        self.step = at_least_one("step", step, "jobs more after a batch in time") or 1
        if not 0 < backoff < 1:
            raise BadInput(f"policy.batcher.backoff={backoff}: it must lie between 0 and 1.")
        self.backoff = backoff
        self._began: float | None = None

    def form(self, draft: Draft, queue: Queue, now: float) -> None:
        if runs(draft, now):
            return
        self._learn(queue, now)
        admit_waiting(draft, queue, now, int(self.size))
        self._began = now if len(queue) and draft.sliced else None

    def _learn(self, queue: Queue, now: float) -> None:
        head = queue.peek(now)
        if self._began is None or head is None or head.arrived > self._began:
            return
        in_time = now - self._began <= self.slo_s
        self.size = self.size + self.step if in_time else max(1.0, self.size * self.backoff)

"""Steps that many batchers share."""

from __future__ import annotations

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import Draft, Queue
from airi_sim.core.types import FOREVER


def admit_waiting(draft: Draft, queue: Queue, now: float, most: int = FOREVER) -> int:
    """Admit from the head of the queue until a seat, the budget or the memory runs out, or `most` are in; returns how
    many. Nobody is skipped."""
    admitted = 0
    peek = queue.peek
    while draft.seats > 0 and (job := peek(now)) is not None and draft.budget > 0 and admitted < most:
        if not draft.admit(job):
            break
        queue.pop(now)
        admitted += 1
    return admitted


def continue_prompts(draft: Draft, now: float) -> None:
    """Let all prompts under way go on, oldest first; some may lose their memory to others meanwhile."""
    if draft.partial:
        for job in tuple(draft.partial):
            if job.id in draft.running:
                draft.chunk(job, now)


def prompts(draft: Draft, queue: Queue, now: float) -> None:
    """Prompts under way, then waiting ones; a pass in which somebody was preempted admits nobody."""
    continue_prompts(draft, now)
    if not draft.preempted:
        admit_waiting(draft, queue, now)


def at_least_one(name: str, value: int | None, what: str) -> int | None:
    """The argument `name` of a batcher, or BadInput."""
    if value is not None and value < 1:
        raise BadInput(f"policy.batcher.{name}={value}: {what} must be at least 1.")
    return value


def not_negative(name: str, value: float, what: str) -> float:
    """The argument `name` of a batcher, or BadInput."""
    if not value >= 0:
        raise BadInput(f"policy.batcher.{name}={value}: {what} must be 0 or more.")
    return value


def above_zero(name: str, value: float, what: str) -> float:
    """The argument `name` of a batcher, or BadInput."""
    if not value > 0:
        raise BadInput(f"policy.batcher.{name}={value}: {what} must be more than 0.")
    return value

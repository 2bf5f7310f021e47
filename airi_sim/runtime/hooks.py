"""What policies may want to hear of or say besides the protocol that all of their kind have."""

from __future__ import annotations

from math import inf, nextafter
from typing import Any

from airi_sim.core.protocols import Queue
from airi_sim.runtime.job import LiveJob


def claims(policy: Any, claim: str, method: str) -> bool:
    """Whether the class that has `method` makes this claim itself: one that overrides the method does not inherit what
    was said of another."""
    owner = next((cls for cls in type(policy).__mro__ if method in vars(cls)), object)
    return bool(vars(owner).get(claim, False))


def tell_over(queue: Queue, job: LiveJob, now: float) -> None:
    """A job that was popped from this queue is over."""
    over = getattr(queue, "over", None)
    if over is not None:
        over(job, job.out, now)


def asks_again(queue: Queue, now: float) -> float:
    """When a queue that holds all its jobs back is to be asked again: just after its horizon; inf if it does not."""
    stable = getattr(queue, "stable", None)
    if stable is None or not len(queue) or queue.peek(now) is not None:
        return inf
    return nextafter(stable(now, {}).until, inf)

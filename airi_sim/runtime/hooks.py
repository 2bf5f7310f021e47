"""What policies may want to hear of or say besides the protocol that all of their kind have."""

from __future__ import annotations

from math import inf, nextafter
from typing import Any

from airi_sim.core.protocols import Queue
from airi_sim.runtime.job import LiveJob


def claims(policy: Any, claim: str, method: str) -> bool:
    """Whether this claim is made of this very `method`: a class, or an object, that overrides the method does not
    inherit what was said of another."""
    if method in getattr(policy, "__dict__", ()):
        return False
    speaker = next((cls for cls in type(policy).__mro__ if claim in vars(cls) or method in vars(cls)), object)
    return claim in vars(speaker) and bool(getattr(policy, claim))


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

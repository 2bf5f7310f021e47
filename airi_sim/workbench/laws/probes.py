"""What is worth knowing of a queue although no law asks for it: is its horizon needed, can it starve anybody."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

from airi_sim.core.types import FOREVER, Horizon, Item, Request
from airi_sim.workbench.laws.ran import Breach, Ran, run
from airi_sim.workbench.laws.suite import NOISE_S, same
from airi_sim.workbench.laws.worlds import World

STARVED = 0.9
"""Share of the jobs that came later and started earlier, from which on a job counts as starved."""


class Forever:
    """A queue whose head never changes, or so it says."""

    def __init__(self, policy: Any) -> None:
        self.policy = policy

    def __getattr__(self, name: str) -> Any:
        return getattr(self.policy, name)

    def __len__(self) -> int:
        return len(self.policy)

    def stable(self, now: float, decoding: Any) -> Horizon:
        return Horizon(FOREVER)


def notes(make: Callable[[], Any], worlds: Iterable[World]) -> list[str]:
    """Sentences about a queue that keeps all laws."""
    found = []
    policy = make()
    if not getattr(policy, "timeless", False):
        if not _needs_horizon(make, worlds):
            found.append(
                "claiming to be stable for ever made no difference in these worlds: if only push and pop move its "
                "order, set timeless=True"
            )
        elif not callable(getattr(policy, "stable", None)):
            found.append("it has no stable(), so it is asked before every pass: right, but slow")
    overtaken, later, job = _most_overtaken(run(_overload(), {"queue": make}))
    if overtaken >= STARVED * later:
        found.append(
            f"it can starve: in a lasting overload {overtaken} of the {later} jobs that came after job {job} started "
            f"before it"
        )
    return found


def _needs_horizon(make: Callable[[], Any], worlds: Iterable[World]) -> bool:
    """Whether it would have decided otherwise somewhere, had it claimed to be stable for ever."""
    for world in worlds:
        try:
            honest = run(world, {"queue": make})
            same("horizon", "", honest, run(world, {"queue": lambda: Forever(make())}), NOISE_S)
        except Breach:
            return True
    return False


def _overload() -> World:
    """Four seats, and twice as much work as they can do for as long as anybody arrives. Every tenth request is long
    and of the lowest priority, the others are short: a lasting stream of them is what starvation takes."""
    pick = random.Random(0)
    items, at = [], 0.0
    for i in range(240):
        at += pick.expovariate(40.0)
        unlucky = i % 10 == 3
        tokens = 300 if unlucky else pick.randint(1, 60)
        request = Request(
            i, at, tokens, 0, "t2" if unlucky else f"t{i % 2}", priority=2 if unlucky else i % 2, deadline=at + 60.0
        )
        items.append(Item(request, 40 if unlucky else pick.randint(5, 40)))
    return World(0, "overload", tuple(items), seats=4, blocks=10_000, limit=200, replicas=1)


def _most_overtaken(ran: Ran) -> tuple[int, int, int]:
    """(how many overtook it, how many could have, job) of the job for which the share is greatest. Only jobs that
    came in the first half count: what comes late has the end of the overload before it."""
    jobs = sorted([(submitted, started or 0.0, job) for job, (submitted, started) in ran.started.items()])
    shares = []
    for i, (_, started, job) in enumerate(jobs[: len(jobs) // 2]):
        later = jobs[i + 1 :]
        overtaken = sum([other < started for _, other, _ in later])
        shares.append((overtaken / len(later), overtaken, len(later), job))
    _, overtaken, count, job = max(shares)
    return overtaken, count, job

"""Calls of one program (an agent, a chain, a conversation) are ordered by what the program has had so far.

`over` books a call when it is over, so between the ends of calls these orders stand still. Each replica knows the calls
it served itself; a router that keeps a program where it is makes that all of them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from typing import Any, Literal

from airi_sim.core.errors import BadInput
from airi_sim.core.types import Job
from airi_sim.policies.queues.estimates import positive
from airi_sim.policies.queues.waiting import Keyed, Patient


class Table:
    """Numbers by program or call, the `capacity` most recently written."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._numbers: OrderedDict[Any, float] = OrderedDict()

    def __getitem__(self, key: Any) -> float:
        return self._numbers.get(key, 0.0)

    def __setitem__(self, key: Any, number: float) -> None:
        self._numbers[key] = number
        self._numbers.move_to_end(key)
        if len(self._numbers) > self.capacity:
            self._numbers.popitem(last=False)


class Plas(Patient):
    """Program-level attained service (Autellix, Luo et al., arXiv:2502.13965): a call is as urgent as its program has
    had little in the calls that are over, `w_in` a token in and `w_out` a token out. In levels, so that programs that
    had about the same go by arrival: the first level ends at `quantum`, each further one at `growth` times that.

    A program is one request, or one session (`by`). Who waits longer than `patience` seconds goes before all, which is
    the horizon. A call keeps the level it came with. `capacity` programs are remembered.
    """

    def __init__(
        self,
        by: Literal["request", "session"] = "request",
        quantum: float = 512.0,
        growth: float = 2.0,
        levels: int = 8,
        patience: float = 60.0,
        w_in: float = 1.0,
        w_out: float = 2.0,
        capacity: int = 100_000,
    ) -> None:
        if not growth > 1 or levels < 1 or capacity < 1:
            raise BadInput(
                f"Plas needs growth above 1, and levels and capacity of at least 1, not {growth}, {levels}, {capacity}."
            )
        super().__init__(positive("patience of Plas", patience))
        self.by, self.w_in, self.w_out = by, w_in, w_out
        self.bounds = [positive("quantum of Plas", quantum) * growth**level for level in range(levels - 1)]
        self._had = Table(capacity)

    def key(self, job: Job, now: float) -> Any:
        return bisect_right(self.bounds, self._had[getattr(job, self.by)]), job.arrived

    def over(self, job: Job, tokens_out: int, now: float) -> None:
        """A call of the program is over."""
        self._had[getattr(job, self.by)] += self.w_in * job.prompt + self.w_out * tokens_out


class Atlas(Keyed):
    """Adaptive thread-level attained service (Autellix, arXiv:2502.13965), for programs whose calls form a graph: a
    call counts from the longest path of calls that led to it, `w_in` a token in and `w_out` a token out; the shortest
    path goes first. What a call depends on is `job.inputs`; one that names nothing depends on all earlier calls of its
    request. Calls of other servers count nothing. Timeless. `capacity` calls and requests are remembered.
    """

    def __init__(self, w_in: float = 1.0, w_out: float = 2.0, capacity: int = 100_000) -> None:
        super().__init__()
        if capacity < 1:
            raise BadInput(f"capacity of Atlas is {capacity} and must be at least 1.")
        self.w_in, self.w_out = w_in, w_out
        self._ends, self._longest = Table(capacity), Table(capacity)
        self._before: dict[int, float] = {}

    def path(self, job: Job) -> float:
        """Service on the longest path of calls that led to this one, of those that are over."""
        if not job.inputs:
            return self._longest[job.request]
        return max(self._ends[parent] for parent in job.inputs)

    def key(self, job: Job, now: float) -> Any:
        return self._before.setdefault(job.id, self.path(job)), job.arrived

    def remove(self, job: Job, now: float) -> None:
        """Forget a waiting job that was cancelled."""
        super().remove(job, now)
        del self._before[job.id]

    def over(self, job: Job, tokens_out: int, now: float) -> None:
        """A call is over: paths go on from here."""
        before = self._before.pop(job.id, 0.0)
        end = self._ends[job.id] = before + self.w_in * job.prompt + self.w_out * tokens_out
        self._longest[job.request] = max(self._longest[job.request], end)

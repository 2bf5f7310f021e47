"""Jobs and views for tests of policies: the real Job, and a view of columns that a test writes by hand."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from math import inf

from airi_sim.core.types import Call, Job, Request
from airi_sim.runtime.view import COLUMNS


def job(
    id: int = 0,
    tokens: int = 10,
    *,
    tenant: str = "default",
    arrived: float = 0.0,
    priority: int = 0,
    budget: int = 0,
    prefix: tuple[int, ...] = (),
) -> Job:
    """Job `id` (its request has the same number, so ids of jobs are multiples of 1000)."""
    request = Request(id, arrived, tokens, budget, tenant, priority=priority, deadline=inf, prefix=prefix)
    return Job(request, Call(tokens=tokens, prefix=prefix), 0, arrived)


class Columns:
    """A View: columns as given, `up` by default all up, other ones 0; `matched` tokens by replica."""

    block = 16

    def __init__(
        self,
        outstanding: Sequence[int],
        up: Sequence[int] | None = None,
        matched: Sequence[int] = (),
        **more: Sequence[int],
    ) -> None:
        self.n = len(outstanding)
        self.columns = {name: array("q", more.get(name, [0] * self.n)) for name in COLUMNS}
        self.columns |= {"outstanding": array("q", outstanding), "up": array("q", up or [1] * self.n)}
        self.tokens = list(matched) or [0] * self.n

    def column(self, name: str, now: float) -> Sequence[int]:
        return self.columns[name]

    def matched(self, replica: int, job: Job) -> int:
        return self.tokens[replica]

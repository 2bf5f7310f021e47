"""A replica that speculates: a draft model proposes tokens, one pass of the target checks them (Leviathan et al. 2023,
Chen et al. 2023).

Every decoding job takes `lookahead` drafted tokens and its own into a pass, and gets one token or more by it: those the
target agrees with, and the one it says itself. Memory and budget are taken for all of them when the pass is drafted;
what was not accepted is given back when it is over. Plans are made pass by pass, because nobody knows beforehand how
far a job comes. Runs without speculation have a plain TokenServer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from airi_sim.runtime.job import LiveJob
from airi_sim.runtime.lockstep import Lockstep
from airi_sim.runtime.token_server import TokenServer

STALE = 4
"""Entries of a lane's heap for each of its jobs, above which those that hold no more are thrown out."""


class SpeculativeServer(TokenServer):
    """A TokenServer whose decoding jobs may get 1 to `lookahead` + 1 tokens a pass (`Outcome.advanced` says how many).

    A pass counts `lookahead` + 1 tokens a decoding job against `limit`, so `seats` times that must fit into it. A queue
    with an `account` hears of tokens, not of passes.
    """

    __slots__ = ("turns",)

    turns: dict[int, list[tuple[int, int]]]
    """Passes of a lane in which a job got another number of tokens than one, with that number; by id, of one stay."""

    def __init__(self, *parts: Any, lookahead: int, **more: Any) -> None:
        super().__init__(*parts, lookahead=lookahead, **more)
        self.fast = False
        self.max_len = min(self.max_len, self.total * self.block - lookahead)

    def empty(self) -> None:
        super().empty()
        self.turns = {}

    def decode(self, now: float) -> None:
        super().decode(now)
        self.budget -= self.lane.count * self.lookahead

    def _vacate(self, job: LiveJob) -> None:
        drafted = self.decodes and job.lane is self.lane
        super()._vacate(job)
        if drafted:
            self.budget += self.lookahead

    def correct(self, lane: Lockstep, advanced: dict[Any, int]) -> None:
        before = lane.passes - 1
        for job, tokens in advanced.items():
            if tokens != 1:
                self.grow(lane.shift(job, tokens - 1))
                self.turns.setdefault(job.id, []).append((before, tokens))
        if self.account is not None:
            self._book(advanced)
        if len(lane.heap) > STALE * lane.count + STALE:
            lane.heap = [(job.g0 - job.n0, job.id, job) for job in self.running.values() if job.lane is lane]
            lane.heap.sort()
        if self.pages is not None:
            self._roll_back(lane)

    def _book(self, advanced: Mapping[LiveJob, int]) -> None:
        """Tokens beyond the one a pass that was booked already."""
        extra: dict[str, int] = {}
        for job, tokens in advanced.items():
            account = getattr(job, str(self.account))
            extra[account] = extra.get(account, 0) + tokens - 1
        if any(extra.values()):
            self.queue.serve({account: tokens for account, tokens in extra.items() if tokens}, 1)  # type: ignore[attr-defined]

    def _roll_back(self, lane: Lockstep) -> None:
        """Blocks that only rejected tokens were written to."""
        assert self.pages is not None
        for job in self.running.values():
            if job.lane is lane:
                self.pages.shrink(job, lane.tokens(job))

    def close_span(self, job: LiveJob) -> None:
        lane, turns = job.lane, self.turns.pop(job.id, None)
        if turns is None or lane is None:
            super().close_span(job)
            return
        emitted = job.emitted
        for first, last in layers(job.joined_pass, lane.passes, turns):
            self.log.spans.append((self.name, lane.index, job.id, first, last, job.joined_s, emitted))
            emitted = False


def layers(first: int, last: int, turns: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Spans of passes that hold one token each: together they hold as many a pass as `turns` (pass, tokens) says, and
    one in those it leaves out. The first span begins at `first`, and may be empty."""
    counts = [1] * (last - first)
    for at, tokens in turns:
        counts[at - first] = tokens
    if not counts or not counts[0]:
        yield first, first
    for level in range(1, max(counts, default=0) + 1):
        begin = None
        for at, tokens in enumerate([*counts, 0], first):
            if tokens >= level and begin is None:
                begin = at
            elif tokens < level and begin is not None:
                yield begin, at
                begin = None

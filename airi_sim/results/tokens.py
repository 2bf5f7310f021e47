"""When each token was emitted, from plans and spans: expanded only where somebody asks for single tokens.

A lane (server, lockstep group) counts its decode passes; a span says from which to which of them a job got a token.
Where it got several in one pass (speculation), further spans say so. Pass durations within a plan are an arithmetic
progression, because context enters the cost of a pass linearly.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from airi_sim.results.columns import Columns, Counts, Floats, Ints

Lane = tuple[str, int]


def lane_ends(plans: Columns) -> dict[Lane, Floats]:
    """End of every decode pass (seconds) by lane, in order of the pass counter."""
    kept = (plans.ints("decodes") > 0) & (plans.ints("passes") > 0)
    names = ("start_s", "end_s", "first_s")
    start, end, first = (plans.floats(name)[kept] for name in names)
    passes = plans.ints("passes")[kept]
    names_of, server = plans.servers()
    groups = by_lane(names_of, server[kept], plans.ints("lane")[kept])
    return {lane: pass_ends(start[rows], end[rows], passes[rows], first[rows]) for lane, rows in groups.items()}


def pass_ends(start: Floats, end: Floats, passes: Ints, first: Floats) -> Floats:
    """Ends of all passes of consecutive plans: pass i of a plan takes `first + i*step`, with the step that makes them
    sum to `end - start`. Where that would make the last pass negative, the passes after the first are equal."""
    total = end - start
    first = np.clip(np.where(np.isnan(first), total / passes, first), 0, total)
    rest = np.maximum(passes - 1, 1)
    even = 2 * total < passes * first
    step = np.where(even | (passes == 1), 0.0, 2 * (total - passes * first) / (passes * rest))
    second = np.where(even, (total - first) / rest, first)
    last = np.cumsum(passes)
    i = np.arange(last[-1] if len(last) else 0) - np.repeat(last - passes, passes)
    ends = (
        np.repeat(start + first, passes) + i * np.repeat(second, passes) + np.repeat(step, passes) * (i * (i + 1) / 2)
    )
    ends[last - 1] = end
    return ends


def by_lane(names: list[str], server: Ints, lane: Ints) -> dict[Lane, Ints]:
    """Places of the rows of each lane, in the order they come."""
    if not len(server):
        return {}
    order = np.lexsort((lane, server))
    changed = (np.diff(server[order]) != 0) | (np.diff(lane[order]) != 0)
    groups = np.split(order, np.flatnonzero(changed) + 1)
    return {(names[server[rows[0]]], int(lane[rows[0]])): rows for rows in groups}


class Tokens:
    """Token times of a run. `plans` and `spans` are tables; the pass ends are computed once, on construction."""

    def __init__(self, plans: Columns, spans: Columns) -> None:
        self.ends = lane_ends(plans)
        passes, decodes = plans.ints("passes"), plans.ints("decodes")
        self.turns = int((passes * decodes)[(passes > 0) & (decodes > 0)].sum())
        self.job, self.first, self.last = (spans.ints(name) for name in ("job", "first_pass", "last_pass"))
        self.names, self.server = spans.servers()
        self.lane = spans.ints("lane")
        joined = spans.floats("joined_s")
        self.entry = np.where(spans.ints("emitted") > 0, joined, np.nan)
        """When a span's first token came with joining; nan where joining emitted none."""

    @property
    def per_pass(self) -> float | None:
        """Tokens of a job in a pass in which it decodes; None if nobody decoded."""
        return float((self.last - self.first).sum() / self.turns) if self.turns else None

    def times(self, job: int) -> Floats:
        """When each output token of a job was emitted (seconds), in order; empty if it emitted none."""
        pieces = [self._of_span(row) for row in np.flatnonzero(self.job == job).tolist()]
        return np.sort(np.concatenate([np.empty(0), *pieces]))

    def each(self) -> Iterator[tuple[int, Floats]]:
        """(job, times of its tokens) of every job that has some, in order of job; cheaper than asking one by one."""
        return self._of_rows(np.argsort(self.job, kind="stable"))

    def _of_rows(self, order: Ints) -> Iterator[tuple[int, Floats]]:
        """The same for some spans, which are in order of job."""
        for rows in np.split(order, np.flatnonzero(np.diff(self.job[order])) + 1):
            times = np.sort(np.concatenate([np.empty(0), *(self._of_span(row) for row in rows.tolist())]))
            if len(times):
                yield int(self.job[rows[0]]), times

    def gaps(self) -> tuple[Floats, Counts]:
        """All gaps between successive tokens of a job, pooled over jobs, as (seconds, how often): the inter-token
        latency. Cost O(passes + spans), not O(tokens): the gap between two passes counts once for every job in both;
        to it come the gaps from joining to the first pass, and those between two spans of a job (preemption). Only of
        jobs that speculated every token is looked at."""
        several = self._several()
        pools = [_pool(np.diff(times)) for _, times in self._of_rows(several)]
        head, tail = self.entry.copy(), self.entry.copy()
        alone = np.ones(len(head), bool)
        head[several], alone[several] = np.nan, False
        for lane, rows in by_lane(self.names, self.server, self.lane).items():
            ends = self._ends(lane)
            rows = rows[alone[rows] & (np.minimum(self.last[rows], len(ends)) > self.first[rows])]
            first, last = self.first[rows], np.minimum(self.last[rows], len(ends))
            pools.append(_pool(np.diff(ends), _shared(first, last, len(ends))))
            pools.append(_pool(ends[first] - self.entry[rows]))
            head[rows] = np.where(np.isnan(self.entry[rows]), ends[first], self.entry[rows])
            tail[rows] = ends[last - 1]
        pools.append(_pool(_between(self.job, head, tail)))
        return np.concatenate([pool[0] for pool in pools]), np.concatenate([pool[1] for pool in pools])

    def _several(self) -> Ints:
        """Spans, in order of job, of jobs that got several tokens in some pass: two of their spans share it."""
        order = np.argsort(self.job, kind="stable")
        again = np.diff(self.job[order]) == 0
        order = order[np.append(again, False) | np.insert(again, 0, False)] if again.any() else order[:0]
        order = order[np.lexsort([column[order] for column in (self.first, self.lane, self.server, self.job)])]
        same = [np.diff(column[order]) == 0 for column in (self.job, self.server, self.lane)]
        shared = np.logical_and.reduce(same) & (self.first[order][1:] < self.last[order][:-1])
        return order[np.isin(self.job[order], self.job[order][1:][shared])]

    def _of_span(self, row: int) -> Floats:
        ends = self._ends((self.names[self.server[row]], int(self.lane[row])))[self.first[row] : self.last[row]]
        entry = self.entry[row : row + 1]
        return np.concatenate([entry[~np.isnan(entry)], ends])

    def _ends(self, lane: Lane) -> Floats:
        return self.ends.get(lane, np.empty(0))


def _pool(gaps: Floats, often: Ints | None = None) -> tuple[Floats, Counts]:
    """Gaps that are defined and occur, and how often (default once); few jobs share a pass, so 4 bytes will do."""
    counts = np.ones(len(gaps), np.int32) if often is None else often.astype(np.int32)
    kept = (counts > 0) & ~np.isnan(gaps)
    return gaps[kept], counts[kept]


def _shared(first: Ints, last: Ints, passes: int) -> Ints:
    """For each pass but the first: how many jobs took part in it and in the one before."""
    change = np.bincount(first + 1, minlength=passes + 1) - np.bincount(last, minlength=passes + 1)
    return np.cumsum(change)[1:passes]


def _between(job: Ints, head: Floats, tail: Floats) -> Floats:
    """Gaps between spans of the same job: from the last token of one to the first token of the next."""
    known = ~np.isnan(head)
    job, head, tail = job[known], head[known], tail[known]
    order = np.lexsort((head, job))
    return (head[order][1:] - tail[order][:-1])[np.diff(job[order]) == 0]

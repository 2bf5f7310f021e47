"""Replay of a recorded trace: a part of it, faster or slower, shrunk to a small model if asked."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import count, islice, repeat
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from airi_sim.core.errors import BadInput, unknown
from airi_sim.core.types import Item, Request
from airi_sim.workload.checks import check_last, real, whole
from airi_sim.workload.data import find
from airi_sim.workload.formats import known_format, read, sniff
from airi_sim.workload.jsonl import HASH_BLOCK
from airi_sim.workload.programs import program as find_program
from airi_sim.workload.readers import LAYOUTS, Row

CHUNK = 1024
"""Rows that become numbers at once: so few that they are in the processor's cache still when requests are made."""


@dataclass(frozen=True)
class Scale:
    """Lengths multiplied, then at least 1 token, then capped (None: no cap)."""

    input: float = 1.0
    output: float = 1.0
    max_input: int | None = None
    max_output: int | None = None

    @classmethod
    def of(cls, keys: Mapping[str, Any] | None) -> Scale:
        """From `workload.scale.*`; BadInput for unknown keys and values out of range."""
        given = dict(keys or {})
        for key in given:
            if key not in (names := [field.name for field in fields(cls)]):
                raise unknown("key of workload.scale", str(key), names)
        for key in ("input", "output"):
            given[key] = real(f"workload.scale.{key}", given.get(key, 1.0), positive=True)
        for key in ("max_input", "max_output"):
            if given.get(key) is not None:
                given[key] = whole(f"workload.scale.{key}", given[key], 1)
        return cls(**given)


class Trace:
    """A workload read from a file (formats: see readers).

    `start_s` drops rows before that second, and times then count from it; `limit` keeps the first rows of the file
    after that (the rest is not read); `rate_scale` 2.0 makes arrivals twice as dense. `scale` shrinks lengths (see
    Scale): prefix ids then stand for `hash_block * scale.input` tokens, so the shared part of two prompts keeps its
    proportion; where that is less than one token they are dropped, with a warning. `program` runs the rows that name
    none.

    The file is read and checked at construction, into columns of 32 bytes a row and 8 a prefix id; requests are made as
    they are consumed. `warnings` says what had to be changed, `extras` holds keys of our format that nobody knows, by
    request id. Rows with 0 tokens count as 1; BurstGPT rows without response tokens are failures and are left out.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        format: str = "auto",
        limit: int | None = None,
        start_s: float = 0.0,
        rate_scale: float = 1.0,
        scale: Mapping[str, Any] | None = None,
        program: str = "chat",
        data_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        known_format(format)
        find_program(program)
        self.start_s = real("workload.start_s", start_s)
        self.rate_scale = real("workload.rate_scale", rate_scale, positive=True)
        self.limit = None if limit is None else whole("workload.limit", limit, 1)
        self.scale = Scale.of(scale)
        self.program = program
        self.path = _trace_file(path, data_dir)
        self.format = sniff(self.path) if format == "auto" else format
        self.name = self.path.stem
        self.hash_block = HASH_BLOCK
        self.warnings: list[str] = []
        self.extras: dict[int, dict[str, Any]] = {}
        self._failed = 0
        self._ids, self._ends = array("q"), array("q", [0])
        self._labels: dict[int, dict[str, Any]] = {}
        self._load()

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Item]:
        for first in range(0, len(self), CHUNK):
            part = slice(first, first + CHUNK)
            rows = self._order[part].tolist()
            seconds, tokens, outputs = (
                column[part].tolist() for column in (self._seconds, self._inputs, self._outputs)
            )
            requests: Iterable[Request] = map(
                Request, count(first), seconds, tokens, repeat(0), repeat("default"), repeat(""), repeat(""),
                repeat(self.program), repeat(0), repeat(inf), repeat(""), self._prefixes(rows, tokens),
            )  # fmt: skip
            if self._labels:
                requests = map(self._labelled, requests, rows)
            yield from map(tuple.__new__, repeat(Item), zip(requests, outputs, strict=True))  # an Item costs more

    def _prefixes(self, rows: list[int], tokens: list[int]) -> Iterable[tuple[int, ...]]:
        """The prefix ids of rows of the file, none beyond the end of a scaled or capped prompt."""
        if not self._ids:
            return repeat(())
        ids, ends, block = self._ids, self._ends, self.hash_block
        return (
            tuple(ids[ends[row] : min(ends[row + 1], ends[row] - (-size // block))])
            for row, size in zip(rows, tokens, strict=True)
        )

    def _labelled(self, request: Request, row: int) -> Request:
        for field, value in self._labels.get(row, {}).items():
            setattr(request, field, request.arrival + value if field == "deadline" else value)
        return request

    def _rows(self) -> Iterator[Row]:
        layout = LAYOUTS.get(self.format)
        rows = read(self.path, self.format)
        if layout is not None and layout.relative:
            rows = _from_first(rows)
        if self.start_s > 0:
            rows = (row for row in rows if row.seconds >= self.start_s)
        if layout is not None and layout.failures:
            rows = filter(self._succeeded, rows)
        return islice(rows, self.limit)

    def _succeeded(self, row: Row) -> bool:
        self._failed += row.output == 0
        return row.output > 0

    def _load(self) -> None:
        seconds, inputs, outputs = array("d"), array("q"), array("q")
        block, extras = 0, {}
        for index, row in enumerate(self._rows()):
            seconds.append(row.seconds)
            inputs.append(row.tokens)
            outputs.append(row.output)
            block = block or row.hash_block
            self._ids.extend(row.prefix)
            self._ends.append(len(self._ids))
            if row.labels:
                self._labels[index] = row.labels
            if row.extras:
                extras[index] = row.extras
        if not seconds:
            raise BadInput(
                f"{self.path} has no request at or after workload.start_s={self.start_s:g}: "
                "a trace needs at least one row; lower start_s or check the file."
            )
        if self._failed:
            self._warn(f"{self._failed} failed requests (no response tokens) were left out")
        self.hash_block = block or HASH_BLOCK
        self._sort(np.array(seconds), extras)
        self._inputs = self._scaled("input", inputs, self.scale.input, self.scale.max_input)
        self._outputs = self._scaled("output", outputs, self.scale.output, self.scale.max_output)
        self._fit_prefixes()

    def _sort(self, seconds: np.ndarray, extras: dict[int, dict[str, Any]]) -> None:
        late = int((np.diff(seconds) < 0).sum())
        self._order = np.argsort(seconds, kind="stable")
        if late:
            self._warn(f"{late} rows were earlier than the row before them; the rows were sorted")
        if extras:
            self.extras = {number: extras[row] for number, row in enumerate(self._order.tolist()) if row in extras}
        seconds = seconds[self._order]
        origin = min(self.start_s, float(seconds[0]))  # only times from the first row can be below 0
        check_last("workload.rate_scale", self.rate_scale, float(seconds[-1] - origin) / self.rate_scale)
        self._seconds = (seconds - origin) / self.rate_scale

    def _scaled(self, what: str, column: array[int], factor: float, most: int | None) -> np.ndarray:
        lengths = np.array(column)[self._order]
        zeros = int((lengths == 0).sum())
        if zeros:
            self._warn(f"{zeros} rows with 0 {what} tokens count as 1 token")
        if factor != 1.0:
            lengths = np.rint(lengths * factor).astype(np.int64)
        return lengths.clip(1, most)

    def _fit_prefixes(self) -> None:
        """Let the ids stand for scaled tokens."""
        if not self._ids or self.scale.input == 1.0:
            return
        exact = self.hash_block * self.scale.input
        if exact < 1:
            self._ids = array("q")
            self._warn(
                f"shared prefixes were dropped, since scale.input={self.scale.input:g} makes a prefix id less than "
                f"one token; use at least 1/{self.hash_block} to keep them"
            )
            return
        self.hash_block = round(exact)
        if self.hash_block != exact:
            self._warn(
                f"a prefix id stands for {exact:g} tokens after scaling, taken as {self.hash_block}, so shared "
                "prefixes are that much off in length"
            )

    def _warn(self, what: str) -> None:
        self.warnings.append(f"{self.path.name}: {what}.")


def _trace_file(path: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None) -> Path:
    if not path:
        raise BadInput("workload=trace needs a file: give workload.path=FILE, or use workload=azure_like.")
    return find(path, data_dir)


def _from_first(rows: Iterator[Row]) -> Iterator[Row]:
    """Times from the first row, to the 7 decimals that are published."""
    first = next(rows, None)
    if first is None:
        return
    yield first._replace(seconds=0.0)
    for row in rows:
        yield row._replace(seconds=round(row.seconds - first.seconds, 7))

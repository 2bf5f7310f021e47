"""Readers of published trace formats: one lazy stream of rows each, and every bad row named by file, line and column.

| format | file | time |
|---|---|---|
| azure | Azure LLM inference traces 2023, 2024, and 2025 (multimodal; images are ignored) | from the first row |
| vidur | Vidur's processed traces | `arrived_at`, seconds, as is |
| burstgpt | BurstGPT v1 and later; the model column is ignored | `Timestamp`, seconds, as is |
| mooncake, airi | JSON lines; ours is a superset of Mooncake's | `timestamp`, milliseconds, as is |
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from math import inf
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from airi_sim.core.errors import BadInput

MOST = 1 << 40  # more tokens than any prompt has; keeps sums of columns within 64 bits


class Row(NamedTuple):
    """One request of a file: seconds, prompt tokens, output tokens, prefix ids, tokens per prefix id (0: no ids),
    fields of Request that the row sets, and keys nobody knows."""

    seconds: float
    tokens: int
    output: int
    prefix: tuple[int, ...] = ()
    hash_block: int = 0
    labels: dict[str, Any] | None = None
    extras: dict[str, Any] | None = None


class Place(NamedTuple):
    """Where in a file something is."""

    path: Path
    line: int

    def bad(self, column: str, why: str) -> NoReturn:
        """Raise BadInput that names file, line and column."""
        raise BadInput(f"{self.path}, line {self.line}, column '{column}': {why}; correct or remove the row.")

    def size(self, column: str, value: Any) -> int:
        """A number of tokens: whole, 0 or more."""
        number = self.number(column, value)
        if number != int(number) or number > MOST:
            self.bad(column, f"{value!r} is not a number of tokens")
        return int(number)

    def number(self, column: str, value: Any) -> float:
        """A finite number, 0 or more."""
        if value is None or value == "":
            self.bad(column, "the value is missing")
        try:
            number = float(value)
        except (TypeError, ValueError):
            self.bad(column, f"{value!r} is not a number")
        if not 0 <= number < inf:
            self.bad(column, f"{value!r} must be 0 or more and finite")
        return number


def azure_clock() -> Callable[[str], float]:
    """Seconds of `2023-11-16 18:17:03.9799600` (an offset `+00:00` is allowed), from the minute of the first call.

    Minutes are looked up and seconds added, because strptime per row is ten times slower and knows six decimals only.
    """
    minutes: dict[str, float] = {}
    first: list[datetime] = []

    def minute(text: str) -> float:
        when = datetime.fromisoformat(text)
        if not first:
            first.append(when)
        minutes[text] = (when - first[0]).total_seconds()
        return minutes[text]

    def seconds(text: str) -> float:
        key = text[:16]
        base = minutes[key] if key in minutes else minute(key)
        rest = float(text[17:].partition("+")[0])
        if not 0 <= rest < 61:
            raise ValueError(text)
        return base + rest

    return seconds


def plain_clock() -> Callable[[str], float]:
    """Seconds written as a number of at least 0."""

    def seconds(text: str) -> float:
        value = float(text)
        if not 0 <= value < inf:
            raise ValueError(text)
        return value

    return seconds


@dataclass(frozen=True)
class Layout:
    """A CSV format: its columns by name, how its times are written, whether they count from the first row, and
    whether rows without output are requests that failed."""

    time: str
    input: str
    output: str
    clock: Callable[[], Callable[[str], float]] = plain_clock
    example: str = "12.5"
    relative: bool = False
    failures: bool = False
    session: str = ""

    @property
    def needed(self) -> tuple[str, str, str]:
        """The columns a file must have."""
        return self.time, self.input, self.output


LAYOUTS = {
    "azure": Layout(
        "TIMESTAMP", "ContextTokens", "GeneratedTokens", azure_clock, "2023-11-16 18:17:03.9799600", relative=True
    ),
    "vidur": Layout("arrived_at", "num_prefill_tokens", "num_decode_tokens"),
    "burstgpt": Layout("Timestamp", "Request tokens", "Response tokens", failures=True, session="Session ID"),
}


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:  # what is not text fails as a value
            for number, line in enumerate(file, 1):
                if not line.isspace():
                    yield number, line
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}); check its permissions.") from None


def cells(line: str) -> list[str]:
    """The cells of a CSV line, stripped; a line that is no CSV is one cell."""
    try:
        return [cell.strip() for cell in next(csv.reader([line.strip()]), [])]
    except csv.Error:
        return [line]


def read_csv(path: Path, layout: Layout) -> Iterator[Row]:
    """The rows of a CSV file in order of the file; times as the clock of the layout gives them."""
    rows = lines(path)
    first, line = next(rows, (1, ""))
    header = _header(Place(path, first), layout, cells(line))
    time, tokens, output = (header[name] for name in layout.needed)
    session = header.get(layout.session)
    clock = layout.clock()
    for number, line in rows:
        try:
            if '"' in line:
                raise ValueError
            parts = line.split(",")
            row = Row(clock(parts[time]), int(parts[tokens]), int(parts[output]))
            if not (0 <= row.tokens <= MOST and 0 <= row.output <= MOST):
                raise ValueError
        except (ValueError, IndexError):
            row = _careful(Place(path, number), layout, header, cells(line), clock)
        yield row if session is None else row._replace(labels={"session": _cell(cells(line), session)})


def _header(place: Place, layout: Layout, names: list[str]) -> dict[str, int]:
    for name in layout.needed:
        if name not in names:
            raise BadInput(
                f"{place.path}, line {place.line}: the header has no column '{name}' "
                f"(it needs {', '.join(layout.needed)}); name the right workload.format, or use auto."
            )
    return {name: index for index, name in enumerate(names)}


def _careful(
    place: Place, layout: Layout, header: dict[str, int], parts: list[str], clock: Callable[[str], float]
) -> Row:
    """The row that the fast way could not read, or the reason why nobody can."""
    text = {name: _cell(parts, header[name]) for name in layout.needed}
    if not text[layout.time]:
        place.bad(layout.time, "the value is missing")
    try:
        seconds = clock(text[layout.time])
    except ValueError:
        place.bad(layout.time, f"'{text[layout.time]}' is not a time such as {layout.example}")
    tokens, output = (place.size(name, text[name]) for name in (layout.input, layout.output))
    return Row(seconds, tokens, output)


def _cell(parts: list[str], index: int) -> str:
    return parts[index] if index < len(parts) else ""

"""Which trace format a file has, and its rows whatever the format."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from airi_sim.core.errors import BadInput, unknown
from airi_sim.workload.jsonl import MOONCAKE, read_jsonl
from airi_sim.workload.readers import LAYOUTS, Row, cells, lines, read_csv

FORMATS = ("auto", "azure", "mooncake", "vidur", "burstgpt", "airi")
"""Values of `workload.format`. Mooncake files are read as ours, which is a superset."""


def known_format(format: str) -> str:
    """The name itself if it is a format, else BadInput with the list and the nearest spelling."""
    if format not in FORMATS:
        raise unknown("trace format", str(format), FORMATS)
    return format


def sniff(path: Path) -> str:
    """The format of a file by its first line that is not blank; BadInput if empty or like none we know."""
    first = next((line for _, line in lines(path)), "").strip()
    if not first:
        raise BadInput(f"{path} is empty: a trace needs at least one row.")
    if first.startswith("{"):
        return _dialect(first)
    header = set(cells(first))
    for name, layout in LAYOUTS.items():
        if header.issuperset(layout.needed):
            return name
    shapes = "; ".join(f"{name}: {', '.join(layout.needed)}" for name, layout in LAYOUTS.items())
    raise BadInput(
        f"{path}: the first line {first[:80]!r} is no known trace header ({shapes}; mooncake and airi: JSON lines); "
        "rename the columns or convert the file."
    )


def _dialect(line: str) -> str:
    try:
        return "mooncake" if MOONCAKE.issuperset(json.loads(line)) else "airi"
    except ValueError:
        return "airi"  # the reader says what is wrong with the line


def read(path: Path, format: str) -> Iterator[Row]:
    """The rows of a file of a format (not auto), in order of the file."""
    layout = LAYOUTS.get(format)
    return read_jsonl(path) if layout is None else read_csv(path, layout)

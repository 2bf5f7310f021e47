"""A run as a Chrome trace: open timeline.json.gz in https://ui.perfetto.dev."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from airi_sim.core.errors import BadInput
from airi_sim.results.columns import Columns

MICRO = 1e6


def write_timeline(tables: Mapping[str, Any], path: str | Path) -> Path:
    """Plans of every server as slices (a row a lane), its queue and KV blocks as counters. Identical runs give
    identical files. `tables`: by name, rows of the log, data frames or Arrow tables; only plans is read."""
    path = Path(path)
    try:
        with path.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as file:
            file.write(b'{"displayTimeUnit":"ms","traceEvents":[\n')
            for place, event in enumerate(events(Columns("plans", tables.get("plans", [])))):
                file.write((b",\n" if place else b"") + json.dumps(event, separators=(",", ":")).encode())
            file.write(b"\n]}\n")
    except OSError as error:
        raise BadInput(f"'{path}' cannot be written ({error.strerror or error}); choose another folder.") from error
    return path


def events(plans: Columns) -> Iterator[dict[str, Any]]:
    """Trace events, server by server names first, then plans in the order of the table."""
    names, server = plans.servers()
    lane = plans.ints("lane")
    for number, name in enumerate(names):
        yield {"ph": "M", "name": "process_name", "pid": number, "args": {"name": name}}
    numbers = [plans.ints(name).tolist() for name in ("passes", "decodes", "prefill_tokens", "waiting", "kv_blocks")]
    start, end = (plans.floats(name) * MICRO for name in ("start_s", "end_s"))
    rows = zip(server.tolist(), lane.tolist(), plans.texts("kind"), start.tolist(), end.tolist(), *numbers, strict=True)
    for pid, tid, kind, begun, over, passes, decodes, prefill, waiting, blocks in rows:
        args = {"passes": passes, "decodes": decodes, "prefill_tokens": prefill}
        name = title(kind, passes, decodes, prefill)
        yield {"ph": "X", "name": name, "pid": pid, "tid": tid, "ts": begun, "dur": over - begun, "args": args}
        yield {"ph": "C", "name": "queue", "pid": pid, "ts": over, "args": {"waiting": waiting}}
        yield {"ph": "C", "name": "KV", "pid": pid, "ts": over, "args": {"blocks": blocks}}


def title(kind: str, passes: int, decodes: int, prefill: int) -> str:
    """What a slice is called: prefill, mixed, decode, move or load, and how many passes if several."""
    if kind == "pass" and (decodes or prefill):
        kind = "mixed" if decodes and prefill else "decode" if decodes else "prefill"
    return f"{kind} x{passes}" if passes > 1 else kind

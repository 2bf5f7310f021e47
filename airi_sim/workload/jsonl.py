"""JSON lines: Mooncake's trace format, and ours, which is a superset of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from airi_sim.workload.programs import PROGRAMS
from airi_sim.workload.readers import MOST, Place, Row, lines

HASH_BLOCK = 512
"""Prompt tokens per prefix id where a file does not say."""
ID_LIMIT = 1 << 63


def _text(place: Place, key: str, value: Any) -> str:
    if not isinstance(value, str | int):
        place.bad(key, f"{value!r} is not a name")
    return str(value)


def _program(place: Place, key: str, value: Any) -> str:
    if not isinstance(value, str) or value not in PROGRAMS:  # a row may not import code, unlike workload.program
        place.bad(key, f"{value!r} is none of the programs {', '.join(PROGRAMS)}")
    return value


def _priority(place: Place, key: str, value: Any) -> int:
    if not isinstance(value, int):
        place.bad(key, f"{value!r} is not a whole number")
    return int(value)


def _deadline(place: Place, key: str, value: Any) -> float:
    return place.number(key, value) * 1e-3


LABELS: dict[str, tuple[str, Callable[[Place, str, Any], Any]]] = {
    "tenant": ("tenant", _text),
    "session": ("session", _text),
    "model": ("model", _text),
    "slo": ("slo", _text),
    "program": ("program", _program),
    "priority": ("priority", _priority),
    "deadline_ms": ("deadline", _deadline),
}
"""Optional keys: the field of Request each sets, and how it is read. A deadline counts from the arrival."""
MOONCAKE = frozenset({"timestamp", "input_length", "output_length", "hash_ids"})
KNOWN = MOONCAKE | {"hash_block"} | LABELS.keys()


def read_jsonl(path: Path) -> Iterator[Row]:
    """The rows of a file in order of the file; seconds as published. One `hash_block` a file, else BadInput."""
    block = 0
    for number, line in lines(path):
        place = Place(path, number)
        record = _record(place, line)
        row = _row(place, record)
        if row.hash_block and row.hash_block != (block := block or row.hash_block):
            place.bad("hash_block", f"{row.hash_block} differs from {block} in an earlier row, one file has one value")
        yield row


def _record(place: Place, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        place.bad("(whole line)", f"not valid JSON ({getattr(error, 'msg', error)})")
    if not isinstance(record, dict):
        place.bad("(whole line)", "a JSON object is needed")
    return record


def _row(place: Place, record: dict[str, Any]) -> Row:
    seconds = _number(place, "timestamp", record.get("timestamp")) / 1000
    tokens = _count(place, "input_length", record.get("input_length"))
    output = _count(place, "output_length", record.get("output_length"))
    prefix, block = _prefix(place, record, tokens)
    if KNOWN.issuperset(record) and LABELS.keys().isdisjoint(record):
        return Row(seconds, tokens, output, prefix, block)
    labels = {
        field: read(place, key, record[key])
        for key, (field, read) in LABELS.items()
        if record.get(key) is not None
    }  # fmt: skip
    extras = {key: value for key, value in record.items() if key not in KNOWN}
    return Row(seconds, tokens, output, prefix, block, labels or None, extras or None)


def _number(place: Place, key: str, value: Any) -> float:
    return value if type(value) is int and value >= 0 else place.number(key, value)


def _count(place: Place, key: str, value: Any) -> int:
    return value if type(value) is int and 0 <= value <= MOST else place.size(key, value)


def _prefix(place: Place, record: dict[str, Any], tokens: int) -> tuple[tuple[int, ...], int]:
    ids, stated = record.get("hash_ids"), record.get("hash_block")
    if not ids and stated is None:
        return (), 0
    block = HASH_BLOCK if stated is None else _count(place, "hash_block", stated)
    if block < 1:
        place.bad("hash_block", "0 tokens per prefix id make no sense, it must be at least 1")
    ids = [] if ids is None else ids
    if not isinstance(ids, list) or not all(type(one) is int and -ID_LIMIT <= one < ID_LIMIT for one in ids):
        place.bad("hash_ids", "a list of 64-bit whole numbers is needed")
    if len(ids) > -(-tokens // block):
        place.bad("hash_ids", f"{len(ids)} ids of {block} tokens are more than the {tokens} prompt tokens")
    return tuple(ids), block

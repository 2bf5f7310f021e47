"""Writes any workload as our trace format, which replay tools for Mooncake's format read as well."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from math import inf
from pathlib import Path
from typing import Any

from airi_sim.core.types import Item, Request
from airi_sim.workload.jsonl import HASH_BLOCK

_DEFAULTS = {"tenant": "default", "session": "", "model": "", "slo": "", "program": "chat", "priority": 0}


def write_jsonl(
    items: Iterable[Item],
    path: str | os.PathLike[str],
    hash_block: int = HASH_BLOCK,
    extras: Mapping[int, Mapping[str, Any]] | None = None,
) -> int:
    """Write items as `airi` JSON lines and return how many; the file appears only when it is complete.

    `hash_block` prompt tokens per prefix id (a workload's own attribute), `extras` more keys by request id. Times are
    written in milliseconds, so they come back within a rounding of the last bit.
    """
    target = Path(path)
    draft = target.with_name(target.name + ".part")
    written = 0
    try:
        with draft.open("w", encoding="utf-8") as file:
            for item in items:
                more = extras.get(item.request.id, {}) if extras else {}
                file.write(json.dumps(record(item, hash_block) | dict(more)) + "\n")
                written += 1
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return written


def record(item: Item, hash_block: int = HASH_BLOCK) -> dict[str, Any]:
    """One row: the keys every row has, and those whose value is not the default."""
    request = item.request
    row: dict[str, Any] = {"timestamp": _ms(request.arrival), "input_length": request.tokens}
    row |= {"output_length": item.output_tokens, "hash_ids": list(request.prefix)}
    if hash_block != HASH_BLOCK:
        row["hash_block"] = hash_block
    return row | _labels(request)


def _labels(request: Request) -> dict[str, Any]:
    labels = {key: getattr(request, key) for key, default in _DEFAULTS.items() if getattr(request, key) != default}
    if request.deadline < inf:
        labels["deadline_ms"] = _ms(request.deadline - request.arrival)
    return labels


def _ms(seconds: float) -> float | int:
    ms = seconds * 1000
    return int(ms) if ms == int(ms) else ms

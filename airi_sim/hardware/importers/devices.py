"""Whose rows a table of many devices holds."""

from __future__ import annotations

import re

import numpy as np

from airi_sim.hardware.importers.files import Table, where


def rows_of(table: Table, column: str, device: str) -> Table:
    """The rows of one device; none where the table does not have it."""
    names = table[column]
    chosen = {name for name in set(names.tolist()) if same_device(str(name), device)}
    return where(table, np.array([name in chosen for name in names], dtype=bool))


def same_device(name: str, device: str) -> bool:
    """Whether a name in a table means our device: 'A100-SXM-80GB' and 'A100' are a100-sxm-80, 'H200-SXM' is no h100."""
    one, other = _words(name), _words(device)
    short, long = sorted((one, other), key=len)
    return bool(short) and long[: len(short)] == short


def _words(name: str) -> list[str]:
    """Letters and digits that belong together; units of memory are left out."""
    return [word for word in re.split(r"[^a-z0-9]+", re.sub(r"(?<=\d)gb\b", "", name.lower())) if word]

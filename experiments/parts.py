"""What the experiments share: how one starts from the command line, and what they ask of the lists in their config."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from airi_sim.core.errors import BadInput
from airi_sim.workload.checks import real


def start(main: Callable[[Sequence[str]], int], about: str | None) -> int:
    """`main` with the words of the command line; `--help` prints `about`, the docstring of the module, instead."""
    words = sys.argv[1:]
    if {"-h", "--help"} & set(words):
        print((about or "").strip())
        return 0
    return main(words)


def listed(key: str, values: Any) -> list[Any]:
    """A list of at least one entry, else BadInput."""
    if not isinstance(values, list) or not values:
        raise BadInput(f"{key} must be a list with at least one entry, not {values!r}.")
    return values


def numbers(key: str, values: Any) -> list[Any]:
    """A list of at least one number above 0, as they were given; else BadInput."""
    for value in listed(key, values):
        real(f"each of {key}", value, positive=True)
    return list(values)

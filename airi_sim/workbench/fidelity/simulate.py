"""A recorded run, simulated: its requests through an engine set up like the real one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airi_sim.core.log import TABLES
from airi_sim.core.types import Item
from airi_sim.workbench.build import build
from airi_sim.workbench.plugins import group_node

Floats = NDArray[np.float64]


class Recorded:
    """Requests that are there already, as a workload: `items` in the order of their arrival."""

    def __init__(self, items: list[Any], hash_block: int = 512) -> None:
        self.items = items
        self.hash_block = hash_block

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)


@dataclass(frozen=True)
class Times:
    """Of every request, in the order of `items`: seconds, nan where it never got that far; output tokens."""

    arrival: Floats
    first: Floats
    finish: Floats
    output: NDArray[np.int64]

    @property
    def ttft(self) -> Floats:
        """Arrival to first token."""
        return self.first - self.arrival

    @property
    def e2e(self) -> Floats:
        """Arrival to last token."""
        return self.finish - self.arrival

    @property
    def tpot(self) -> Floats:
        """Seconds per output token after the first; nan for a single token."""
        gaps = np.where(self.output > 1, self.output - 1, np.nan)
        return (self.finish - self.first) / gaps


def setting(config: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """A copy of a composed config with other keys: `setting(config, precision="fp8", **{"pool.tp": 2})`.

    A word for `model`, `accelerator` or `serving` chooses from that group; a mapping takes the place of the section.
    """
    made = deepcopy(dict(config))
    for key, value in changes.items():
        *path, leaf = key.split(".")
        node = made
        for name in path:
            node = node[name]
        if not path and isinstance(value, str) and isinstance(made[leaf], Mapping):
            value = group_node(leaf, value, made["seed"], made["data"]["dir"])
        node[leaf] = value
    return made


def simulate(config: Mapping[str, Any], items: Sequence[Item], hash_block: int = 512) -> Times:
    """Run `items` through the engine of `config` (its own workload is left out); times of every request."""
    workload = {"_target_": f"{__name__}.Recorded", "items": list(items), "hash_block": hash_block}
    world = build({**config, "workload": workload})
    world.driver.run(iter(world.workload))
    by_request = {row[0]: row for row in world.log.requests}
    rows = [by_request[item.request.id] for item in items]
    arrival, first, finish = (_column(rows, name) for name in ("arrival_s", "first_token_s", "finish_s"))
    return Times(arrival, first, finish, _column(rows, "output_tokens").astype(np.int64))


def _column(rows: list[tuple[Any, ...]], name: str) -> Floats:
    place = TABLES["requests"].index(name)
    return np.array([np.nan if row[place] is None else row[place] for row in rows], dtype=np.float64)

"""Timings of kernels in one form, whatever table they come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airi_sim.core.errors import BadInput
from airi_sim.models.spec import ModelSpec

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Wanted:
    """What is looked for in a table: the device (a name of ours), the precision of the weights, and whose layers, where
    a table times the layers of models."""

    device: str
    precision: str = "bf16"
    model: ModelSpec | None = None

    @property
    def plain(self) -> bool:
        """Weights as 16-bit floats, the only ones some tables have."""
        return self.precision in ("bf16", "fp16")


SHAPES: dict[str, tuple[str, ...]] = {
    "gemm": ("m", "n", "k"),
    "decode": ("sequences", "context", "heads", "kv_heads", "head_dim"),
    "prefill": ("sequences", "tokens", "past", "heads", "kv_heads", "head_dim"),
    "mixed": ("tokens", "past", "sequences", "context", "heads", "kv_heads", "head_dim"),
    "moe": ("tokens", "hidden", "ffn", "experts", "active"),
    "small": ("tokens", "hidden", "ffn"),
    "all_reduce": ("ranks", "bytes"),
}
"""Kinds of kernels and the numbers that make their shape.

gemm        m tokens with an n x k weight
decode      attention of `sequences` new tokens, each over `context` tokens
prefill     causal attention of `sequences` chunks of `tokens` after `past` tokens each
mixed       one chunk of `tokens` after `past` beside `sequences` decodes over `context` tokens each, one kernel
moe         grouped products of `tokens`, each through `active` of `experts` of width `ffn` (of one rank)
small       all element-wise kernels of a layer (`ffn` of one rank): norms, activation, rotary embedding
all_reduce  of `bytes` over `ranks` accelerators
"""


@dataclass(frozen=True)
class Ops:
    """Timings of one kind of kernel: a column a number of `SHAPES[kind]`, `seconds` beside them, all of equal length.

    `variant` tells apart what shares a kind but not its coefficients (whose all-reduce), `source` is where they are
    from, in words. Raises BadInput where a column is missing or a time is not above 0.
    """

    kind: str
    columns: Mapping[str, Floats]
    seconds: Floats
    source: str
    variant: str = ""

    def __post_init__(self) -> None:
        missing = [name for name in SHAPES[self.kind] if name not in self.columns]
        if missing:
            raise BadInput(f"{self.source}: the {self.kind} timings lack {', '.join(missing)}.")
        if not (self.seconds > 0).all():
            raise BadInput(f"{self.source}: a {self.kind} timing is not above 0 seconds; remove that row.")

    def __len__(self) -> int:
        return len(self.seconds)

    def __getitem__(self, name: str) -> Floats:
        return self.columns[name]

    def take(self, places: NDArray[Any]) -> Ops:
        """Some rows: places or flags."""
        columns = {name: column[places] for name, column in self.columns.items()}
        return Ops(self.kind, columns, self.seconds[places], self.source, self.variant)

    @property
    def ranges(self) -> dict[str, list[float]]:
        """Least and most of each number of the shape."""
        return {name: [float(self[name].min()), float(self[name].max())] for name in SHAPES[self.kind]}


def ops(kind: str, columns: Mapping[str, Any], seconds: Any, source: str, variant: str = "") -> Ops:
    """Ops from any sequences; numbers stand for whole columns."""
    times = np.asarray(seconds, dtype=float)
    filled = {name: np.broadcast_to(np.asarray(column, dtype=float), times.shape) for name, column in columns.items()}
    return Ops(kind, filled, times, source, variant)


def joined(parts: Iterable[Ops]) -> list[Ops]:
    """Ops of the same kind and variant become one; empty ones go."""
    groups: dict[tuple[str, str], list[Ops]] = {}
    for part in parts:
        if len(part):
            groups.setdefault((part.kind, part.variant), []).append(part)
    return [_join(group) for group in groups.values()]


def _join(group: Sequence[Ops]) -> Ops:
    first = group[0]
    columns = {name: np.concatenate([part[name] for part in group]) for name in SHAPES[first.kind]}
    sources = ", ".join(dict.fromkeys(part.source for part in group))
    return Ops(first.kind, columns, np.concatenate([part.seconds for part in group]), sources, first.variant)

"""Generated workloads: renewal arrivals, independent lengths, shared prefixes; memory stays flat at any length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from itertools import count, islice, repeat
from math import inf
from typing import Any

import numpy as np

from airi_sim.core.errors import unknown
from airi_sim.core.types import Item, Request
from airi_sim.workload.checks import check_last, real, whole
from airi_sim.workload.lengths import lengths
from airi_sim.workload.programs import program as find_program
from airi_sim.workload.seeds import stream

CHUNK = 8192


@dataclass(frozen=True)
class Prefix:
    """Shared beginnings: each request belongs to one of `groups`, whose members share their first `tokens` tokens
    (all of the prompt if it is shorter). The k-th group is drawn in proportion to k**-zipf (0: all alike)."""

    groups: int = 0
    tokens: int = 0
    zipf: float = 0.0

    @classmethod
    def of(cls, keys: Mapping[str, Any] | None) -> Prefix:
        """From `workload.prefix.*`; BadInput for unknown keys and values out of range."""
        given = {str(key): value for key, value in (keys or {}).items() if value is not None}
        for key in given:
            if key not in (names := [field.name for field in fields(cls)]):
                raise unknown("key of workload.prefix", key, names)
        groups = whole("workload.prefix.groups", given.get("groups", 0), 0)
        tokens = whole("workload.prefix.tokens", given.get("tokens", 0), 0)
        return cls(groups, tokens, real("workload.prefix.zipf", given.get("zipf", 0.0)))


class Synthetic:
    """`n` requests with independent gaps, lengths and prefix groups.

    Gaps have mean 1/`rate` seconds and a Gamma distribution of shape `burstiness`: 1 is a Poisson process, less is
    burstier (the coefficient of variation is burstiness**-0.5), as in vLLM's serving benchmark. `rate` infinite or
    None: all arrive at 0, for closed loops. `input` and `output`: see lengths.lengths. `prefix`: see Prefix; ids stand
    for `hash_block` tokens and cover whole blocks of the shared part only.

    Arrivals, inputs, outputs and prefixes have streams of their own (seeds.stream), so changing one leaves the others
    (common random numbers); gaps are drawn for rate 1 and divided, so another rate only stretches time; the first
    requests are the same for every `n`.
    """

    def __init__(
        self,
        rate: float | None,
        n: int,
        input: Mapping[str, Any] | int,
        output: Mapping[str, Any] | int,
        burstiness: float = 1.0,
        prefix: Mapping[str, Any] | None = None,
        hash_block: int = 16,
        program: str = "chat",
        seed: int = 0,
        name: str = "synthetic",
    ) -> None:
        find_program(program)
        self.name = name
        self.rate = _rate(rate)
        self.n = whole("workload.n", n, 1)
        check_last("workload.rate", rate, self.n / self.rate)
        self.burstiness = real("workload.burstiness", burstiness, positive=True)
        self.input = lengths(input, "workload.input")
        self.output = lengths(output, "workload.output")
        self.prefix = Prefix.of(prefix)
        self.hash_block = whole("workload.hash_block", hash_block, 1)
        self.program = program
        self.seed = seed
        self.warnings: list[str] = []
        stream(seed, "arrivals")

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[Item]:
        return islice(self._endless(), self.n)

    def _endless(self) -> Iterator[Item]:
        inputs, outputs = stream(self.seed, "input"), stream(self.seed, "output")
        for first, seconds, groups in zip(count(0, CHUNK), self._arrivals(), self._groups(), strict=False):
            tokens = self.input.draw(inputs, CHUNK).tolist()
            requests = map(
                Request, count(first), seconds, tokens, repeat(0), repeat("default"), repeat(""), repeat(""),
                repeat(self.program), repeat(0), repeat(inf), repeat(""), self._ids(groups, tokens),
            )  # fmt: skip
            yield from map(Item, requests, self.output.draw(outputs, CHUNK).tolist())

    def _arrivals(self) -> Iterator[list[float]]:
        """Seconds, a chunk at a time."""
        rng, now = stream(self.seed, "arrivals"), 0.0
        while True:
            ends = now + np.cumsum(rng.standard_gamma(self.burstiness, CHUNK) / self.burstiness)
            now = float(ends[-1])
            yield (ends / self.rate).tolist()

    def _groups(self) -> Iterator[list[int]]:
        """Prefix groups, a chunk at a time; empty lists if nothing is shared."""
        rng = stream(self.seed, "prefix")
        ends = np.cumsum(np.arange(1, self.prefix.groups + 1, dtype=float) ** -self.prefix.zipf)
        while True:
            yield np.searchsorted(ends, rng.random(CHUNK) * ends[-1], side="right").tolist() if len(ends) else []

    def _ids(self, groups: list[int], tokens: list[int]) -> Iterable[tuple[int, ...]]:
        """Prefix ids; requests with the same ones hold the same tuple."""
        most = self.prefix.tokens // self.hash_block
        if not groups or not most:
            return repeat(())

        @cache
        def ids(group: int, blocks: int) -> tuple[int, ...]:
            return tuple(range(group * most, group * most + blocks))

        return (ids(group, min(most, size // self.hash_block)) for group, size in zip(groups, tokens, strict=True))


def _rate(rate: float | None) -> float:
    """Requests per second; None means infinite. A stretch of 1/inf puts every arrival at 0."""
    if rate is None or rate == inf:
        return inf
    return real("workload.rate", rate, positive=True)

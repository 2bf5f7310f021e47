"""Whether the passes of a run lie within what the coefficients of its accelerator were measured on.

Worked out after the run, from what its passes had in them; nothing of it is on the way of a pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airi_sim.hardware.accelerator import Accelerator
from airi_sim.hardware.deployment import Deployment
from airi_sim.hardware.kernels import Kernels
from airi_sim.hardware.serving import BARE

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Range = tuple[float, float]
LARGE = 1 << 20
"""Weights in a matrix that takes a noticeable part of a pass."""


@dataclass(frozen=True)
class Passes:
    """Runs of equal passes, a column each: how many passes, decoding sequences in them, the sum of their contexts in
    the first pass, prompt tokens, and seconds of all of them."""

    passes: Ints
    decodes: Ints
    context: Ints
    prompt: Ints
    seconds: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.passes)

    def take(self, places: Any) -> Passes:
        """Some rows."""
        return Passes(*(column[places] for column in vars(self).values()))


@dataclass
class Coverage:
    """Passes by how well they are known.

    calibrated    every kernel in them was timed on the accelerator, at sizes around theirs
    interpolated  prompts and decodes were timed at such sizes, but never both in one pass
    extrapolated  the rest: a size beyond the timings, or a kernel without any
    lacked        what was missing: {kernel, number, reached, timed: [least, most] or null, passes}
    """

    calibrated: int = 0
    interpolated: int = 0
    extrapolated: int = 0
    lacked: list[dict[str, Any]] = field(default_factory=list)

    @property
    def known(self) -> bool:
        """No pass lies outside."""
        return not self.extrapolated

    def add(self, other: Coverage) -> None:
        """Count the passes of another pool too."""
        self.calibrated += other.calibrated
        self.interpolated += other.interpolated
        self.extrapolated += other.extrapolated
        self.lacked += other.lacked

    def plain(self) -> dict[str, Any]:
        """For summary.json."""
        return dict(vars(self))

    def sentences(self) -> list[str]:
        """What one should doubt: one sentence, if there is anything."""
        if self.known:
            return []
        total = self.calibrated + self.interpolated + self.extrapolated
        missing = "; ".join(dict.fromkeys([_words(one) for one in self.lacked]))  # pools may lack the same
        return [f"{self.extrapolated:,} of {total:,} passes lie outside what was measured ({missing})."]


def coverage(deployment: Deployment, passes: Passes) -> Coverage:
    """How well the passes of one pool are known."""
    device = deployment.accelerator
    if device is None or deployment.model is None or not len(passes):
        return Coverage()
    if device.profile is not None:
        return _of_profile(device.profile, passes)
    found = _Finder(device, passes)
    found.kernel("gemm", "m", passes.decodes + passes.prompt)
    for number, values in zip(("n", "k"), _weights(deployment), strict=True):
        found.whole("gemm", number, values)
    found.kernel("decode", "sequences", passes.decodes)
    found.kernel("decode", "context", passes.context // np.maximum(passes.decodes, 1) + passes.passes)
    found.kernel("prefill", "tokens", passes.prompt)
    if deployment.model.experts:
        found.kernel("moe", "tokens", passes.decodes + passes.prompt)
    both = (passes.decodes > 0) & (passes.prompt > 0)
    return found.counted(both & ("mixed" not in device.ranges))


class _Finder:
    """Collects which passes lack what."""

    def __init__(self, device: Accelerator, passes: Passes) -> None:
        self.ranges: Mapping[str, Mapping[str, Range]] = device.ranges
        self.passes = passes
        self.outside: Flags = np.zeros(len(passes), dtype=bool)
        self.lacked: list[dict[str, Any]] = []

    def kernel(self, kernel: str, number: str, values: Ints) -> None:
        """A number of a kernel in every pass; 0: the pass does not run it."""
        used = values > 0
        known = self.ranges.get(kernel, {}).get(number)
        beyond = used if known is None else used & ((values < known[0]) | (values > known[1]))
        if beyond.any() and not (known is None and self._said(kernel)):
            self._lack(kernel, number, values[beyond], known, beyond)

    def whole(self, kernel: str, number: str, values: list[float]) -> None:
        """A number that all passes have: a side of the weights. A longer one than was timed is more of the same tiles,
        a shorter one is something else."""
        known = self.ranges.get(kernel, {}).get(number)
        beyond = [value for value in values if known is not None and value < known[0]]
        if beyond:
            self._lack(kernel, number, np.array(beyond), known, np.ones(len(self.passes), dtype=bool))

    def counted(self, apart: Flags) -> Coverage:
        """The passes by class; `apart`: their parts were never timed together."""
        weights = self.passes.passes
        between = apart & ~self.outside
        inside = ~apart & ~self.outside
        calibrated, interpolated, extrapolated = (int(weights[some].sum()) for some in (inside, between, self.outside))
        return Coverage(calibrated, interpolated, extrapolated, self.lacked)

    def _said(self, kernel: str) -> bool:
        return any(one["kernel"] == kernel and one["timed"] is None for one in self.lacked)

    def _lack(self, kernel: str, number: str, values: Any, known: Range | None, beyond: Flags) -> None:
        self.outside |= beyond
        least, most = float(np.min(values)), float(np.max(values))
        reached = most if known is None or most > known[1] else least
        self.lacked.append(
            {
                "kernel": kernel, "number": number, "reached": reached, "timed": None if known is None else list(known),
                "passes": int(self.passes.passes[beyond].sum()),
            }
        )  # fmt: skip


def _words(one: Mapping[str, Any]) -> str:
    if one["timed"] is None:
        return f"{one['kernel']}: no timings of this accelerator"
    low, high = one["timed"]
    return f"{one['kernel']}: {one['number']} {one['reached']:g}, timed {low:g} to {high:g}"


def _of_profile(profile: Mapping[str, Any], passes: Passes) -> Coverage:
    """By the ranges of a profile of a measured backend."""
    ranges = profile["kinds"].get("generate", {}).get("ranges", {})
    outside: Flags = np.zeros(len(passes), dtype=bool)
    reached = {
        "tokens": passes.decodes + passes.prompt,
        "sequences": passes.decodes,
        "context": passes.context + passes.decodes * passes.passes,
    }
    lacked = []
    for number, values in reached.items():
        low, high = ranges.get(number, (0, np.inf))
        beyond = values > high
        outside |= beyond
        if beyond.any():
            count = int(passes.passes[beyond].sum())
            lacked.append({"kernel": "pass", "number": number, "reached": float(values.max()), "timed": [low, high],
                           "passes": count})  # fmt: skip
    inside = int(passes.passes[~outside].sum())
    return Coverage(inside, 0, int(passes.passes[outside].sum()), lacked)


class _Spy(Kernels):
    """Kernels that note the weights they multiply with."""

    seen: set[tuple[float, float]]

    def product(self, m: int, n: float, k: float, *more: Any) -> float:
        self.seen.add((n, k))
        return super().product(m, n, k, *more)


def _weights(deployment: Deployment) -> tuple[list[float], list[float]]:
    """Both sides of every weight matrix on one accelerator, smallest first; routers of experts do not count."""
    assert deployment.model is not None
    serving = deployment.serving or BARE
    spy = _Spy(deployment.model, deployment.accelerator, serving, deployment.precision, deployment.tp)
    spy.seen = set()
    spy.layers(1)
    spy.head(1)
    large = [(n, k) for n, k in spy.seen if n * k >= LARGE]
    return sorted({n for n, _ in large}), sorted({k for _, k in large})

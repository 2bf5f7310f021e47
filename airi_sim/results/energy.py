"""Energy of a run from its plans, and the carbon of the hours in which it was drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from airi_sim.core.errors import BadInput
from airi_sim.results.columns import Columns, Floats

WORK = ("base", "pass_s", "prompt_s", "decode_s", "context_s", "experts_s", "unused")
"""What is known of the work of a server, in seconds at full power beyond idle (hardware.power); all may be absent: then
a server that is busy draws full power."""


def at_full_power(plans: Columns, rows: np.ndarray, work: Mapping[str, float]) -> Floats:
    """Of each row of the plans table, the seconds at full power that draw what its passes drew beyond idle.

    Pass i of a row takes f + g*i seconds and works a + b*i, because its context grows; it draws base * time + work, at
    most its time. That sums in closed form, so merged passes draw what single ones do.
    """
    seconds = plans.floats("end_s")[rows] - plans.floats("start_s")[rows]
    passes, decodes, prompt = (plans.floats(name)[rows] for name in ("passes", "decodes", "prefill_tokens"))
    base = work.get("base", 1.0)
    first = np.where(passes > 1, plans.floats("first_s")[rows], seconds)
    grows = np.where(passes > 1, 2 * (seconds - passes * first) / np.maximum(passes * (passes - 1), 1), 0.0)
    context = work.get("context_s", 0.0)
    begins = (
        work.get("pass_s", 0.0)
        + work.get("decode_s", 0.0) * decodes
        + work.get("prompt_s", 0.0) * prompt
        + context * (plans.floats("context_tokens")[rows] + decodes)
        + work.get("experts_s", 0.0) * (1.0 - work.get("unused", 1.0) ** (decodes + prompt))
    )
    short = _below_zero((base - 1.0) * first + begins, (base - 1.0) * grows + context * decodes, passes)
    return np.where(passes > 0, seconds + short, base * seconds)


def _below_zero(a: Floats, b: Floats, n: Floats) -> Floats:
    """Sum over i < n of min(0, a + b*i)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.where(b != 0, -a / b, np.where(a < 0, np.inf, 0.0))
    falls = b < 0
    turn = np.clip(np.where(falls, np.floor(root) + 1, np.ceil(root)), 0, n)
    until = a * turn + b * turn * (turn - 1) / 2
    whole = a * n + b * n * (n - 1) / 2
    return np.where(falls, whole - until, until)


class Intensity:
    """Carbon of the grid in g/kWh: one number, or [[seconds, g/kWh], ...], each valid until the next begins."""

    def __init__(self, given: float | Sequence[Sequence[float]]) -> None:
        steps: Any = [[0.0, given]] if isinstance(given, int | float) else given
        self.times, self.values = (np.array([float(step[i]) for step in steps]) for i in (0, 1))
        if self.times[0] != 0 or (np.diff(self.times) <= 0).any():
            raise BadInput("cost.gco2_per_kwh must begin at 0 seconds and go on in order of time.")
        self.sums = np.concatenate([[0.0], np.cumsum(self.values[:-1] * np.diff(self.times))])

    def until(self, at: Floats) -> Floats:
        """The integral from 0 to `at`, in g/kWh * s."""
        step = np.searchsorted(self.times, at, side="right") - 1
        return np.asarray(self.sums[step] + self.values[step] * (at - self.times[step]))

    def mean(self, start: Floats, end: Floats) -> Floats:
        """The mean over each stretch of time; at a moment, where a stretch has no length."""
        length = end - start
        here = self.values[np.searchsorted(self.times, start, side="right") - 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(length > 0, (self.until(end) - self.until(start)) / length, here)

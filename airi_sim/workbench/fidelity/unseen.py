"""Accelerators that were never measured: kernels of a card predicted from its data sheet and what other cards reach.

Each card of the op tables in turn: the coefficients are the medians of those fitted to all the others, the data sheet
is its own, and its timings are predicted, a row a shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from airi_sim.hardware.accelerator import Accelerator
from airi_sim.hardware.importers import read_ops
from airi_sim.hardware.importers.ops import Ops
from airi_sim.hardware.opfit import FAMILIES, distinct, fit_ops, possible_on, predicted, sample, with_values
from airi_sim.workbench.fidelity.rows import Options, Row, Say
from airi_sim.workbench.objects import instantiate
from airi_sim.workbench.plugins import group_node

TABLES = ("aic_gemm", "aic_attention_context", "aic_attention_generation")
NEEDS = tuple(f"fidelity/ops/{name}.parquet" for name in TABLES)
CARDS = ("h100-sxm", "h200-sxm", "a100-sxm-80", "l40s")
SHAPES = 1500


def score(folder: Path, options: Options, progress: Say) -> list[Row]:
    """Seconds of every kernel of every card, as if it were new; the mode is the card."""
    devices = {name: _sheet(name) for name in CARDS}
    timings = {name: read_ops([folder / file for file in NEEDS], name) for name in CARDS}
    fits = {}
    for name in CARDS:
        progress(f"fitting {name}")
        fits[name] = {
            c: value for fit in fit_ops(timings[name], devices[name], "bf16") for c, value in fit.values.items()
        }
    rows = []
    for name in CARDS:
        if options.chosen(name):
            rows += _rows(name, timings[name], guessed(devices[name], [fits[one] for one in CARDS if one != name]))
    return rows


def guessed(device: Accelerator, others: Sequence[Mapping[str, float]]) -> Accelerator:
    """A card with the median coefficients of others."""
    return with_values(device, {name: median(one[name] for one in others) for name in others[0]})


def _sheet(name: str) -> Accelerator:
    device = instantiate(group_node("accelerator", name), "accelerator")
    assert isinstance(device, Accelerator)
    return replace(device, name=name)


def _rows(name: str, timings: Sequence[Ops], device: Accelerator) -> list[Row]:
    rows = []
    for ops in timings:
        worth = ops.take(np.flatnonzero(FAMILIES[ops.kind].worth(ops) & possible_on(ops, device)))
        some = sample(distinct(worth), SHAPES)
        pairs = zip(some.seconds.tolist(), predicted(some, device, "bf16").tolist(), strict=True)
        rows += [Row(name, "", name, 1, ops.kind, ops.kind, seen, said, name) for seen, said in pairs]
    return rows

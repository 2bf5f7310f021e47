"""Errors of many runs as few figures: median and mean over runs, median over cells; peers on the same runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pandas as pd

from airi_sim.workbench.fidelity.rows import Row

PEERS = "fidelity/peer_records_long.csv"
PEER = "peer"
FAILED = 100.0
"""Error in percent that a run counts with which could not be simulated."""


@dataclass(frozen=True)
class Score:
    """Absolute percentage errors of one metric of one dataset, simulated in one mode."""

    dataset: str
    mode: str
    metric: str
    runs: int
    median: float
    mean: float
    cells: float
    bias: float

    @property
    def name(self) -> str:
        """dataset, mode, metric."""
        return " ".join(filter(None, (self.dataset, self.mode, self.metric)))


def scores(rows: Iterable[Row]) -> list[Score]:
    """One for each dataset, mode and metric, in the order in which they occur."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.dataset, row.mode, row.metric), []).append(row)
    return [_score(*key, group) for key, group in groups.items()]


def _score(dataset: str, mode: str, metric: str, rows: Sequence[Row]) -> Score:
    cells: dict[tuple[str, str, int, str], list[float]] = {}
    for row in rows:
        cells.setdefault(row.cell, []).append(error(row))
    errors = [error(row) for row in rows]
    known = [100 * (row.predicted / row.measured - 1) for row in rows if row.predicted == row.predicted]
    per_cell = median(fmean(values) for values in cells.values())
    bias = median(known) if known else FAILED
    return Score(dataset, mode, metric, len(rows), median(errors), fmean(errors), per_cell, bias)


def error(row: Row) -> float:
    """Of a run that could not be simulated: counts as a failure."""
    return row.ape if row.ape == row.ape else FAILED


def peers(folder: Path, rows: Sequence[Row]) -> list[Score]:
    """What other simulators scored on the runs of `rows` (their records name the same runs); none without the file."""
    path = folder / PEERS
    if not path.is_file():
        return []
    table = pd.read_csv(path)
    table = table[(table.stage == -1) & table.exp.isin({row.run for row in rows}) & table.ape_pct.notna()]
    table = table[table.metric.isin({row.metric for row in rows})].sort_values(["simulator", "metric"], kind="stable")
    lines: list[dict[str, Any]] = [
        {str(key): value for key, value in line.items()} for line in table.to_dict("records")
    ]
    found = [
        Row(
            line["exp"], "", "", 1, line["exp"], line["metric"], 1.0, 1.0 + line["ape_pct"] / 100,
            line["simulator"], PEER,
        )
        for line in lines
    ]  # fmt: skip
    return scores(found)


def text(found: Sequence[Score]) -> str:
    """A line a score."""
    lines = [f"{'dataset':10} {'mode':22} {'metric':24} {'runs':>4} {'median':>8} {'mean':>8} {'cells':>8} {'bias':>8}"]
    lines += [
        f"{s.dataset:10} {s.mode:22} {s.metric:24} {s.runs:4} {s.median:6.1f} % {s.mean:6.1f} % {s.cells:6.1f} % "
        + ("       -" if s.dataset == PEER else f"{s.bias:+6.1f} %")
        for s in found
    ]
    return "\n".join(lines)

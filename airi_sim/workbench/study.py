"""Policies against each other: every set on the same requests (common random numbers), differences seed by seed."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

from airi_sim.core.errors import BadInput
from airi_sim.results.stats import Interval, mean_interval, paired_interval
from airi_sim.results.text import digits, seconds
from airi_sim.workbench.comparison import with_policies
from airi_sim.workbench.config import load_config, plain
from airi_sim.workbench.execute import execute

FIGURES: dict[str, tuple[str, ...]] = {
    "ttft_mean_s": ("ttft_s", "mean"),
    "ttft_p99_s": ("ttft_s", "p99"),
    "tpot_mean_s": ("tpot_s", "mean"),
    "e2e_mean_s": ("e2e_s", "mean"),
    "e2e_p99_s": ("e2e_s", "p99"),
    "output_tokens_per_s": ("throughput", "output_tokens_per_s"),
    "max_service_difference": ("fairness", "max_service_difference"),
    "slo_attainment": ("slo", "attainment"),
}
"""What is compared, and where it stands in a summary."""


class Cell(NamedTuple):
    """One figure of one policy set at one load: its mean over seeds, and how it differs from the first set's, each
    with its interval (95 %, Student's t over seeds)."""

    load: float
    policies: str
    figure: str
    mean: Interval
    difference: Interval | None


def study(overrides: list[str], folder: Path) -> list[Cell]:
    """Run every policy set at every load with every seed; returns a cell a figure. Run folders stay beside it."""
    base = plain(load_config(overrides))
    what = base["study"]
    if not what["policies"] or len(what["policies"]) < 2:
        raise BadInput("study.policies needs at least two named sets: {a: {queue: fcfs}, b: {queue: vtc}}.")
    if len(what["seeds"]) < 2:
        raise BadInput("study.seeds needs at least two seeds: intervals come from how the seeds differ.")
    for chosen in what["policies"].values():  # what cannot work is refused before anything runs
        with_policies(base, chosen)
    found: dict[tuple[float, str], list[dict[str, Any]]] = {}
    for load, name, seed in combinations(what):
        config = loaded(plain(load_config([*overrides, f"seed={seed}"])), load)
        print(f"{name} at load {load:g}, seed {seed}", file=sys.stderr)
        place = folder / f"load-{load:g}" / name / f"seed-{seed}"
        summary = execute(with_policies(config, what["policies"][name]), place, f"{name}, load {load:g}")
        found.setdefault((load, name), []).append(summary)
    return list(cells(found, next(iter(what["policies"]))))


def combinations(what: Mapping[str, Any]) -> Iterator[tuple[float, str, int]]:
    """Every load, policy set and seed, in that order."""
    for load in what["loads"]:
        for name in what["policies"]:
            for seed in what["seeds"]:
                yield float(load), str(name), int(seed)


def loaded(config: dict[str, Any], load: float) -> dict[str, Any]:
    """The config with its arrivals `load` times as dense."""
    copy = deepcopy(config)
    key = "rate_scale" if "rate_scale" in copy["workload"] else "rate"
    if copy["workload"].get(key) is None:
        raise BadInput("study.loads scales workload.rate or workload.rate_scale, and this workload has neither.")
    copy["workload"][key] *= load
    return copy


def cells(found: Mapping[tuple[float, str], list[dict[str, Any]]], first: str) -> Iterator[Cell]:
    """Figures that are defined for every seed, with their intervals."""
    for (load, name), summaries in found.items():
        for figure in FIGURES:
            values, others = series(summaries, figure), series(found[load, first], figure)
            if values is None:
                continue
            paired = paired_interval(values, others) if name != first and others is not None else None
            yield Cell(load, name, figure, mean_interval(values), paired)


def series(summaries: list[dict[str, Any]], figure: str) -> list[float] | None:
    """The figure by seed; None if a run left it undefined."""
    section, key = FIGURES[figure]
    values = [summary[section][key] for summary in summaries]
    return None if any(value is None for value in values) else values


def write(found: list[Cell], path: Path) -> None:
    """A row a cell."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["load", "policies", "figure", "mean", "low", "high", "difference", "d_low", "d_high", "clear"])
        for cell in found:
            change = cell.difference
            paired = [change.mean, change.low, change.high, change.clear and varies(cell)] if change else [""] * 4
            rows.writerow(
                [cell.load, cell.policies, cell.figure, cell.mean.mean, cell.mean.low, cell.mean.high, *paired]
            )


def text_of(found: list[Cell], first: str) -> str:
    """A line a cell, load by load; a star where the interval of the difference leaves zero out, and no interval where
    the seeds change nothing (a recorded trace under policies that draw nothing)."""
    lines = []
    for load in dict.fromkeys(cell.load for cell in found):
        lines.append(f"== load {load:g}: mean over seeds, difference to {first} [95 % interval of paired seeds] ==")
        lines += [line(cell) for cell in found if cell.load == load]
    return "\n".join(lines)


def varies(cell: Cell) -> bool:
    """Whether the seeds changed anything: without that an interval says nothing."""
    return cell.mean.low < cell.mean.high


def line(cell: Cell) -> str:
    show = seconds if cell.figure.endswith("_s") and "per_s" not in cell.figure else digits
    text = f"{cell.policies:24} {cell.figure:24} {show(cell.mean.mean):>10}"
    if cell.difference is None:
        return text
    if not varies(cell):
        return f"{text}   {show(cell.difference.mean):>10}  (every seed gave the same: no interval)"
    star = " * (0 is outside)" if cell.difference.clear else ""
    return (
        f"{text}   {show(cell.difference.mean):>10}  [{show(cell.difference.low)}, {show(cell.difference.high)}]{star}"
    )

"""Pictures of a score: predicted over measured with the line where both agree, and errors by group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from airi_sim.results import style
from airi_sim.workbench.fidelity.rows import Row
from airi_sim.workbench.fidelity.scores import error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GROUPS: dict[str, Callable[[Row], str]] = {
    "model": lambda row: row.model.rpartition("/")[2],
    "accelerator": lambda row: f"{row.accelerator} x{row.tp}",
    "workload": lambda row: row.workload,
}
MOST_GROUPS, LETTERS = 9, 18
MARKS = "os^Dv<>P*X"


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """A picture of agreement and one of errors for each data set and mode; returns the files."""
    parts: dict[str, list[Row]] = {}
    for row in rows:
        parts.setdefault("-".join(filter(None, (row.dataset, row.mode))), []).append(row)
    files = []
    for name, part in parts.items():
        for kind, picture in (("agreement", agreement(part)), ("errors", errors(part))):
            files.append(folder / f"{name}-{kind}.png")
            picture.savefig(files[-1], facecolor="white")
    return files


def agreement(rows: Sequence[Row]) -> Figure:
    """Predicted over measured, a panel for each metric, a colour for each model."""
    known = [row for row in rows if row.predicted == row.predicted]
    metrics = list(dict.fromkeys(row.metric for row in known))[:6]
    columns = min(3, max(1, len(metrics)))
    lines = -(-max(1, len(metrics)) // columns)
    made, panels = style.figure(columns=columns, rows=lines, height=3.3 * lines + 0.6)
    models = list(dict.fromkeys(GROUPS["model"](row) for row in known))
    for axes, metric in zip(panels, metrics, strict=False):
        _panel(axes, [row for row in known if row.metric == metric], models)
        style.titled(axes, metric.replace("_", " "), "measured", "predicted")
    for axes in panels[len(metrics) :]:
        axes.set_visible(False)
    if panels and len(models) > 1:
        handles, names = panels[0].get_legend_handles_labels()
        made.legend(handles, names, loc="outside lower center", ncols=3, frameon=False, fontsize=8.5)
    return made


def _panel(axes: Axes, rows: Sequence[Row], models: Sequence[str]) -> None:
    values = [value for row in rows for value in (row.measured, row.predicted)]
    if not values:
        style.nothing(axes, "nothing could be simulated")
        return
    ends = np.array([min(values) / 1.2, max(values) * 1.2])
    axes.plot(ends, ends, color=style.INK, lw=1.0)
    axes.fill_between(ends, ends * 0.9, ends * 1.1, color=style.GRID, alpha=0.5, lw=0)
    for i, name in enumerate(models):
        some = [row for row in rows if GROUPS["model"](row) == name]
        colour, mark = style.SERIES[i % len(style.SERIES)], MARKS[i % len(MARKS)]
        points = [row.measured for row in some], [row.predicted for row in some]
        axes.plot(*points, ls="", marker=mark, ms=5, mec="white", mew=0.4, color=colour, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if ends[1] < 30 * ends[0] else (1,)))
        axis.set_major_formatter(EngFormatter(unit="s", sep=" "))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)
    axes.set_aspect("equal")


def errors(rows: Sequence[Row]) -> Figure:
    """Median error by model, by accelerator and by workload, a bar for each metric that has a mean."""
    means = [m for m in dict.fromkeys(row.metric for row in rows) if not m.endswith(("_p90", "_p99", "_tokens"))][:3]
    made, panels = style.figure(rows=len(GROUPS), height=8.0)
    for axes, (group, key) in zip(panels, GROUPS.items(), strict=True):
        _bars(axes, [row for row in rows if row.metric in means], key, means)
        style.titled(axes, f"Error by {group}", "", "median error (%)")
    style.legend(panels[0], [metric.replace("_", " ") for metric in means], list(style.SERIES[: len(means)]))
    return made


def _bars(axes: Axes, rows: Sequence[Row], key: Callable[[Row], str], metrics: Sequence[str]) -> None:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    order = sorted(groups, key=lambda name: -len(groups[name]))[:MOST_GROUPS]
    share = 0.8 / max(1, len(metrics))
    for i, metric in enumerate(metrics):
        heights = [median([error(r) for r in groups[name] if r.metric == metric] or [0.0]) for name in order]
        axes.bar(np.arange(len(order)) + (i + 0.5) * share - 0.4, heights, share * 0.92, color=style.SERIES[i])
    names = [f"{fill(name, LETTERS)} ({len({row.run for row in groups[name]})})" for name in order]
    axes.set_xticks(range(len(order)), names, fontsize=7.5)

"""How pictures look: one palette that colour-blind readers can tell apart, direct labels, units on the axes.

Figures are made without pyplot, so no global state is touched and any number of them may be drawn at once.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from airi_sim.results.columns import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

INK, MUTED, GRID = "#1b1f24", "#6e7781", "#d0d7de"
DARK = {INK: "#e6edf3", MUTED: "#9aa4af", GRID: "#3d444d"}
"""What ink, secondary text and grid become on a dark page."""

SOURCES = {"sim": "#0072b2", "torch": "#d55e00"}
"""Simulated is always blue, measured always vermilion."""

SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#8c6d31")
"""Okabe and Ito's palette, the yellow (too pale for lines) replaced, black left to the text."""

WIDTH, DPI = 9.0, 100
POINTS = 900


def figure(columns: int = 1, rows: int = 1, height: float = 3.2, share_x: bool = False) -> tuple[Figure, list[Axes]]:
    """An empty figure 900 pixels wide, and its axes in reading order."""
    made = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained", facecolor="none")
    FigureCanvasAgg(made)
    grid = made.subplots(rows, columns, squeeze=False, sharex=share_x)
    for axes in grid.flat:
        _plain(axes)
    return made, list(grid.flat)


def titled(axes: Axes, title: str, x: str = "", y: str = "") -> None:
    """Title at the left, quantities with their units on the axes."""
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK, pad=8)
    axes.set_xlabel(x, fontsize=9.5, color=MUTED)
    axes.set_ylabel(y, fontsize=9.5, color=MUTED)


def duration_axis(axes: Axes, values: Sequence[Floats]) -> None:
    """An x axis of durations: logarithmic where they span more than a factor of 30, ticks in s, ms or µs."""
    known = np.concatenate([np.empty(0), *(sample[sample > 0] for sample in values)])
    if len(known) and known.max() > 30 * np.percentile(known, 1):
        axes.set_xscale("log")
        axes.set_xlim(np.percentile(known, 0.5) / 1.2, known.max() * 1.2)
        axes.xaxis.set_minor_formatter("")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(EngFormatter(unit="s", sep=" "))


def label_ends(axes: Axes, lines: Sequence[Line2D], names: Sequence[str]) -> None:
    """Names at the right ends of lines, pushed apart where they would overlap."""
    low, high = axes.get_ylim()
    room = 0.075 * (high - low) * 3.2 / max(axes.get_window_extent().height / DPI, 1.0)
    ends = [float(np.asarray(line.get_ydata())[-1]) if len(line.get_ydata()) else low for line in lines]
    placed = low
    for i in sorted(range(len(ends)), key=ends.__getitem__):
        placed = max(ends[i], placed + room if i != min(range(len(ends)), key=ends.__getitem__) else low)
        axes.annotate(
            names[i],
            (1.0, placed),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9.5,
            color=lines[i].get_color(),
            annotation_clip=False,
        )


def legend(axes: Axes, names: Sequence[str], colours: Sequence[str]) -> None:
    """Names in their colours in the upper right corner: for panels whose lines end together."""
    for i, (name, colour) in enumerate(zip(names, colours, strict=True)):
        axes.annotate(
            name,
            (1.0, 1.0),
            xycoords="axes fraction",
            xytext=(0, 8 + 12 * (len(names) - 1 - i)),
            textcoords="offset points",
            ha="right",
            fontsize=9.5,
            color=colour,
        )


def nothing(axes: Axes, why: str) -> None:
    """Say in the picture that there is nothing to see, instead of an empty frame."""
    axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", color=MUTED, fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])


def thin(x: Floats, y: Floats, points: int = POINTS) -> tuple[Floats, Floats]:
    """The curve with at most about `points` points: of every stretch the lowest and the highest are kept."""
    if len(x) <= points:
        return x, y
    edges = np.linspace(0, len(x), points // 2 + 1).astype(int)
    kept = {0, len(x) - 1}
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        kept.update((low + int(y[low:high].argmin()), low + int(y[low:high].argmax())))
    chosen = np.array(sorted(kept))
    return x[chosen], y[chosen]


def svg(picture: Figure) -> str:
    """The figure as SVG text whose ink follows the reader's light or dark setting; the same figure, the same text."""
    with rc_context({"svg.hashsalt": "airi_sim", "svg.fonttype": "none", "font.family": "sans-serif"}):
        buffer = io.StringIO()
        picture.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    for i, colour in enumerate(DARK):
        text = text.replace(colour, f"var(--c{i})")
    light = "".join(f"--c{i}:{colour};" for i, colour in enumerate(DARK))
    dark = "".join(f"--c{i}:{colour};" for i, colour in enumerate(DARK.values()))
    fonts = "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,Arial,sans-serif!important}"
    style = f"<style>:root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}{fonts}</style>"
    head, mark, body = text.partition("<defs>")
    return head + style + mark + body


def _plain(axes: Axes) -> None:
    axes.set_facecolor("none")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID)
    axes.grid(True, axis="y", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelsize=9, length=3, width=0.7)

"""How pictures look: one palette that colour-blind readers can tell apart, direct labels, units on the axes.

Figures are made without pyplot, so no global state is touched and any number of them may be drawn at once.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from airi_sim.results.columns import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, GRID = "#1b1f24", "#6e7781", "#d0d7de"
DARK = {INK: "#e6edf3", MUTED: "#9aa4af", GRID: "#3d444d", "#0072b2": "#4aa8e8", "#d55e00": "#f0833a"}
"""What ink, secondary text, grid, blue and vermilion become on a dark page."""

SOURCES = {"sim": "#0072b2", "torch": "#d55e00"}
"""Simulated is always blue, measured always vermilion; nothing else has these colours where both can occur."""

WORLDS = {"sim": "simulated", "torch": "measured"}

SERIES = ("#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#8c6d31", "#0072b2", "#d55e00")
"""Okabe and Ito's palette, the yellow (too pale for lines) replaced, black left to the text."""

WIDTH, DPI = 9.0, 100
POINTS = 900


class Picture(Figure):
    """A figure that notebooks show by themselves: no pyplot, no inline backend, ink on white."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", facecolor="white")
        return buffer.getvalue()


def figure(columns: int = 1, rows: int = 1, height: float = 3.2, share_x: bool = False) -> tuple[Figure, list[Axes]]:
    """An empty figure 900 pixels wide, and its axes in reading order."""
    made = Picture(figsize=(WIDTH, height), dpi=DPI, layout="constrained", facecolor="none")
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
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(EngFormatter(unit="s", sep=" "))


def label_ends(axes: Axes, lines: Sequence[Line2D], names: Sequence[str]) -> None:
    """Names at the right ends of lines, pushed apart where they would overlap."""
    low, high = axes.get_ylim()
    room = (high - low) * 0.19 / max(axes.get_window_extent().height / DPI, 1.0)
    ends = [float(np.asarray(line.get_ydata(), dtype=np.float64)[-1]) for line in lines]
    place = -np.inf
    for i in sorted(range(len(ends)), key=ends.__getitem__):
        place = max(ends[i], place + room)
        axes.annotate(
            names[i],
            (1.0, place),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9.5,
            color=lines[i].get_color(),
            annotation_clip=False,
        )


def legend(
    axes: Axes, names: Sequence[str], colours: Sequence[str], dashes: Sequence[Any] | None = None, inside: bool = False
) -> None:
    """Names in their colours: in one line above the right corner, or (`inside`) in the lower right corner, which
    distribution functions leave free."""
    styles = dashes or ["-"] * len(names)
    keys = [Line2D([], [], color=colour, ls=dash, lw=2) for colour, dash in zip(colours, styles, strict=True)]
    axes.legend(
        keys,
        names,
        loc="lower right",
        bbox_to_anchor=(1.0, 0.02 if inside else 1.0),
        ncols=1 if inside else len(names),
        frameon=False,
        labelcolor=list(colours),
        fontsize=9.5,
        handlelength=1.4,
        handletextpad=0.5,
        columnspacing=1.4,
        borderpad=0.2,
        borderaxespad=0.1,
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
    for low, high in pairwise(edges.tolist()):
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

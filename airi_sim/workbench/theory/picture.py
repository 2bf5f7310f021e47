"""The picture of the theory suite: how far the engine is from each closed form, beside what it is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from airi_sim.results import style
from airi_sim.workbench.theory.rows import ASYMPTOTIC, BOUND, EXACT, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {EXACT: style.SERIES[0], ASYMPTOTIC: style.SERIES[1], BOUND: style.SERIES[2]}
FAILED = "#d55e00"
EDGE = 7.0
"""Percent at which the picture ends: more than any limit."""
LINE = 0.16
"""Inches a row."""


def draw(rows: Sequence[Row]) -> Figure:
    """One line a row: its signed error in percent of the closed form, its limit as a band. Rows whose form is 0 (paths
    that must be the same), bounds that are kept and what an allowance covers stand at 0; what is off the picture stands
    at its edge."""
    made, panels = style.figure(height=1.2 + LINE * len(rows))
    axes = panels[0]
    for y, row in enumerate(rows):
        scale = 100 / abs(row.closed_form) if row.closed_form else 0.0
        off = min(EDGE, row.error * scale) * (1 if row.engine > row.closed_form else -1)
        axes.barh(y, 2 * row.limit * scale, left=-row.limit * scale, height=0.8, color=style.GRID, alpha=0.55)
        axes.plot([off], [y], "o", ms=3.5, color=COLOURS[row.tag] if row.passed else FAILED)
    axes.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=6.5)
    axes.set_ylim(len(rows) - 0.3, -0.7)
    axes.set_xlim(-1.03 * EDGE, 1.03 * EDGE)
    axes.grid(True, axis="x", color=style.GRID, linewidth=0.7)
    axes.grid(False, axis="y")
    axes.axvline(0, color=style.MUTED, lw=0.8)
    passed = sum(row.passed for row in rows)
    style.titled(axes, f"Engine against closed forms: {passed} of {len(rows)} within", "error (% of the closed form)")
    style.legend(axes, list(COLOURS), list(COLOURS.values()), inside=True)
    return made

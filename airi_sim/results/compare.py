"""A simulated run beside a measured one: how far off each figure is, and how far off measuring twice is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airi_sim.results.metrics import Summary
from airi_sim.results.text import NONE, digits, seconds

if TYPE_CHECKING:
    import pandas as pd

    from airi_sim.results.run import Run

LATENCIES = ("ttft", "tpot", "itl", "e2e", "queue")
STATISTICS = ("mean", "p50", "p95")
WORDS = ("queue", "load", "cold")
"""Names that are no abbreviations."""
OTHERS = {
    "requests_per_s": ("throughput", "requests_per_s"),
    "output_tokens_per_s": ("throughput", "output_tokens_per_s"),
    "preemptions": ("preemptions",),
    "duration_s": ("duration_s",),
}
LOADS = {"load": "s", "cold": "cold_s"}
"""Of runs in which models come and go: the time of a load, and what jobs waited for one."""
COLUMNS = ("sim", "measured", "error_pct", "noise_pct", "selffit_pct")
SCORED = [f"{name}_{kind}" for name in ("ttft", "tpot", "e2e") for kind in STATISTICS]
"""The nine figures over which a comparison has one error."""


def compare(
    sim: Run | Summary,
    measured: Run | Summary,
    repeat: Run | Summary | None = None,
    selffit: Run | Summary | None = None,
) -> pd.DataFrame:
    """A row a metric: `sim`, `measured`, `error_pct` = 100 (sim - measured) / measured, and two floors: `noise_pct` =
    100 |repeat - measured| / measured, what a second measurement of the same thing is off by, and `selffit_pct`, the
    same of a simulation whose cost model was fitted on the very passes it predicts; nan where undefined."""
    import pandas as pd

    left, right = figures(sim), figures(measured)
    floors: list[dict[str, float | None]] = [{} if run is None else figures(run) for run in (repeat, selffit)]
    rows = {
        name: _row(left.get(name), right.get(name), *(floor.get(name) for floor in floors)) for name in right | left
    }
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=list(COLUMNS), dtype=float)
    return frame.rename_axis("metric")


def figures(run: Run | Summary) -> dict[str, float | None]:
    """The figures that are compared, by name: ttft_mean, ..., duration_s."""
    summary = run if isinstance(run, Mapping) else run.summary
    found = {f"{name}_{kind}": summary[f"{name}_s"][kind] for name in LATENCIES for kind in STATISTICS}
    if (summary.get("loads") or {}).get("count"):
        found |= {f"{name}_{kind}": summary["loads"][key][kind] for name, key in LOADS.items() for kind in STATISTICS}
    return found | {name: _follow(summary, path) for name, path in OTHERS.items()}


def mean_size(frame: pd.DataFrame, column: str) -> float:
    """Mean over the nine scored figures of the size of an error or a floor, in percent; nan where there is none."""
    return float(frame.loc[SCORED, column].abs().mean())


def format_table(frame: pd.DataFrame) -> str:
    """The table for the terminal: fixed width, units in the cells, the floors only if they are known."""
    names = [name for name in frame.columns if not frame[name].isna().all() or name == "error_pct"]
    head = ["metric", *(name.replace("_pct", "") for name in names)]
    rows = [
        [row_name(metric), *(cell_text(metric, name, row[name]) for name in names)] for metric, row in frame.iterrows()
    ]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [_line(row, widths) for row in [head, *rows]]
    return "\n".join([lines[0], "  ".join("─" * width for width in widths), *lines[1:]])


def row_name(metric: Any) -> str:
    """ttft_p50 as people write it: TTFT p50."""
    name, _, kind = str(metric).partition("_")
    if name in (*LATENCIES, *LOADS):
        return f"{name if name in WORDS else name.upper()} {kind}"
    return str(metric).removesuffix("_s").replace("_per", "/s").replace("_", " ") if "_per_s" in str(metric) else name


def cell_text(metric: Any, column: str, value: float) -> str:
    """One figure with its unit."""
    if value != value:
        return NONE
    if column.endswith("_pct"):
        return f"{value:+.1f} %" if column == "error_pct" else f"{value:.1f} %"
    if metric == "preemptions":
        return f"{value:,.0f}"
    return seconds(value) if str(metric).partition("_")[0] in (*LATENCIES, *LOADS, "duration") else digits(value)


def _row(sim: float | None, measured: float | None, *floors: float | None) -> tuple[float | None, ...]:
    return sim, measured, _off(sim, measured), *(_size(_off(floor, measured)) for floor in floors)


def _off(value: float | None, reference: float | None) -> float | None:
    if value is None or reference is None:
        return None
    if not reference:
        return 0.0 if value == reference else None
    return 100 * (value - reference) / reference


def _size(value: float | None) -> float | None:
    return None if value is None else abs(value)


def _follow(summary: Summary, path: tuple[str, ...]) -> Any:
    found: Any = summary
    for key in path:
        found = found.get(key) if found else None
    return found


def _line(cells: list[str], widths: list[int]) -> str:
    first, *rest = zip(cells, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)])

"""Pictures of one run, or of a simulated run over a measured one. Each returns a matplotlib Figure, 900 pixels wide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator

from airi_sim.core.errors import BadInput
from airi_sim.results import style
from airi_sim.results.columns import Columns, Floats
from airi_sim.results.compare import LATENCIES, row_name
from airi_sim.results.curves import Cumulative, levels
from airi_sim.results.fairness import tenants
from airi_sim.results.metrics import latencies

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from airi_sim.results.run import Run

TIME = "time since start (s)"
BINS = 100
MOST_TENANTS = 8
DASHES: tuple[Any, ...] = ("-", (0, (4, 2)), ":")
WORK = {"prefill": "#e69f00", "mixed": "#009e73", "decode": "#0072b2", "move": "#cc79a7", "load": "#7a5195"}


class Pictures:
    """The pictures of some runs, usually one: `run.plot.latency_cdf()`. Several are drawn over each other."""

    def __init__(self, runs: Sequence[Run]) -> None:
        if not runs:
            raise BadInput("there is no run to draw; give at least one.")
        self.runs = list(runs)
        alike = len({run.source for run in runs}) < len(runs)
        self.names = [style.WORLDS[run.source] + (f" {i}" if alike else "") for i, run in enumerate(runs, 1)]
        self.colours = [style.SERIES[i % 8] if alike else style.SOURCES[run.source] for i, run in enumerate(runs)]

    def latency_cdf(self) -> Figure:
        """Share of requests within a time to first token, a time per output token, an end-to-end time."""
        made, panels = style.figure(columns=3)
        times = [latencies(_read(run, "requests"), _read(run, "jobs")) for run in self.runs]
        titles = {"ttft_s": "Time to first token", "tpot_s": "Time per output token", "e2e_s": "End to end"}
        for axes, (name, title) in zip(panels, titles.items(), strict=True):
            self._cdf(axes, [one[name][~np.isnan(one[name])] for one in times])
            style.titled(axes, title, y="share of requests" if axes is panels[0] else "")
            axes.tick_params(labelleft=axes is panels[0])
        self._legend(panels[-1], inside=True)
        return made

    def queue_over_time(self) -> Figure:
        """Jobs waiting at the servers, all together."""
        return self._levels("waiting", "Queue", "jobs waiting")

    def kv_over_time(self) -> Figure:
        """KV blocks in use, all servers together."""
        return self._levels("kv_blocks", "KV cache", "blocks in use")

    def batch_over_time(self) -> Figure:
        """Decoding jobs, all servers together."""
        return self._levels("decodes", "Batch", "jobs decoding")

    def throughput_over_time(self) -> Figure:
        """Output and prompt tokens a second."""
        made, panels = style.figure(rows=2, height=4.4, share_x=True)
        for axes, (title, curve) in zip(panels, _TOKENS.items(), strict=True):
            for run, colour in self._drawn():
                axes.plot(*_rates(run, curve), color=colour, lw=1.5)
            style.titled(axes, title, TIME if axes is panels[-1] else "", "tokens/s")
            _from_zero(axes)
        self._legend(panels[0])
        return made

    def service_by_tenant(self) -> Figure:
        """Cumulative service (prompt tokens + 2 x output tokens) of each tenant; a measured run is dashed."""
        made, (axes,) = style.figure(height=3.6)
        colours: dict[str, str] = {}
        for run, dashes in zip(self.runs, cycle(DASHES), strict=False):
            end = run.summary["duration_s"]
            times = np.linspace(0, end, 300)
            for tenant in tenants(_read(run, "requests"), _read(run, "jobs"), end)[:MOST_TENANTS]:
                colour = colours.setdefault(tenant.name, style.SERIES[len(colours) % len(style.SERIES)])
                axes.plot(times, tenant.service.at(times), color=colour, lw=1.7, ls=dashes)
        style.titled(axes, "Service received", TIME, "prompt + 2 x output tokens")
        _from_zero(axes)
        style.label_ends(axes, axes.get_lines()[: len(colours)], list(colours))
        if len(self.runs) > 1:
            style.legend(axes, self.names, [style.MUTED] * len(self.runs), list(islice(cycle(DASHES), len(self.runs))))
        return made

    def timeline(self, start_s: float = 0.0, end_s: float | None = None) -> Figure:
        """What every server did when: a bar a plan, between the two times (default: all)."""
        rows = [(run, server) for run in self.runs for server in sorted(run.plans["server"].unique(), key=_natural)]
        made, (axes,) = style.figure(height=1.2 + 0.32 * max(len(rows), 2))
        end = end_s if end_s is not None else max(run.summary["duration_s"] for run in self.runs)
        for place, (run, server) in enumerate(rows):
            _bars(axes, run.plans[run.plans["server"] == server], place)
        names = [f"{server}, {style.WORLDS[run.source]}" if len(self.runs) > 1 else server for run, server in rows]
        axes.set_yticks(range(len(rows)), names)
        axes.set_xlim(start_s, max(end, start_s + 1e-9))
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(False)
        style.titled(axes, "Timeline", TIME)
        style.legend(axes, list(WORK), list(WORK.values()))
        return made

    def _cdf(self, axes: Axes, samples: list[Floats]) -> None:
        for sample, colour in zip(samples, self.colours, strict=True):
            x = np.sort(sample)
            axes.step(*style.thin(x, np.arange(1, len(x) + 1) / max(len(x), 1)), where="post", color=colour, lw=1.7)
        if not any(len(sample) for sample in samples):
            return style.nothing(axes, "undefined for every request")
        style.duration_axis(axes, samples)
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")

    def _levels(self, column: str, title: str, unit: str) -> Figure:
        made, (axes,) = style.figure(height=2.6)
        for run, colour in self._drawn():
            plans = _read(run, "plans")
            x, y = levels(plans.servers()[1], plans.floats("end_s"), plans.floats(column))
            axes.step(*style.thin(x, y), where="post", color=colour, lw=1.3)
        style.titled(axes, title, TIME, unit)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        _from_zero(axes)
        self._legend(axes)
        return made

    def _drawn(self) -> list[tuple[Run, str]]:
        return list(zip(self.runs, self.colours, strict=True))

    def _legend(self, axes: Axes, inside: bool = False) -> None:
        if len(self.runs) > 1:
            style.legend(axes, self.names, self.colours, inside=inside)


def error_bars(table: pd.DataFrame) -> Figure:
    """Error of every latency of a comparison (`compare`), over the noise floor that a repeated measurement sets."""
    known = table[[str(name).partition("_")[0] in LATENCIES for name in table.index]].dropna(subset=["error_pct"])
    made, (axes,) = style.figure(height=1.1 + 0.27 * max(len(known), 2))
    axes.use_sticky_edges = False
    places = np.arange(len(known))
    noise = known["noise_pct"].fillna(0).to_numpy()
    axes.barh(places, 2 * noise, left=-noise, height=0.85, color=style.GRID)
    axes.hlines(places, 0, known["error_pct"], color=style.SOURCES["sim"], lw=2)
    axes.plot(known["error_pct"], places, "o", color=style.SOURCES["sim"], ms=5)
    axes.axvline(0, color=style.MUTED, lw=0.8)
    axes.set_yticks(places, [row_name(name) for name in known.index])
    axes.set_ylim(len(known) - 0.4, -0.6)
    axes.grid(False)
    style.titled(axes, "Error of the simulation", "simulated over measured (%); grey: noise of measuring twice")
    return made


def _rates(run: Run, curve: Callable[[Run], Cumulative]) -> tuple[Floats, Floats]:
    edges = np.linspace(0, max(run.summary["duration_s"], 1e-9), BINS + 1)
    return (edges[:-1] + edges[1:]) / 2, np.diff(curve(run).at(edges)) / np.diff(edges)


def _output(run: Run) -> Cumulative:
    plans, jobs = _read(run, "plans"), _read(run, "jobs")
    tokens = plans.floats("passes") * plans.floats("decodes")
    first = jobs.floats("first_s")
    return Cumulative.of((first, np.ones(len(first))), (plans.floats("start_s"), plans.floats("end_s"), tokens))


def _prompts(run: Run) -> Cumulative:
    plans = _read(run, "plans")
    ramps = (plans.floats("start_s"), plans.floats("end_s"), plans.floats("prefill_tokens"))
    return Cumulative.of((np.empty(0), np.empty(0)), ramps)


_TOKENS = {"Output tokens": _output, "Prompt tokens processed": _prompts}


def _bars(axes: Axes, plans: pd.DataFrame, place: int) -> None:
    decodes, prefill = plans["decodes"] > 0, plans["prefill_tokens"] > 0
    work = np.select(
        [decodes & prefill, decodes, prefill], ["mixed", "decode", "prefill"], plans["kind"].to_numpy(object)
    )
    for name, colour in WORK.items():
        rows = plans[work == name]
        ends = np.stack([rows["start_s"], rows["end_s"]], axis=1)
        bars = [((start, place), (end, place)) for start, end in ends]
        axes.add_collection(
            LineCollection(
                bars, colors=colour, linewidths=14, capstyle="butt", antialiaseds=False, rasterized=len(bars) > 500
            )
        )


def _from_zero(axes: Axes) -> None:
    axes.margins(x=0)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _natural(name: str) -> tuple[int, str]:
    return len(name), name


def _read(run: Run, name: str) -> Columns:
    return Columns(name, getattr(run, name))

"""How latency and throughput change with load, policy by policy, on the same requests.

    python -m experiments.load_sweep
    python -m experiments.load_sweep workload=trace sweep.key=workload.rate_scale sweep.values=[2,4,6]

Question: up to which load does a set of policies keep its promises, and what does it cost below that? Every set sees
the same requests at the same load (common random numbers: the seed fixes lengths and gaps, the rate only stretches the
gaps), so what differs is the policy. What is swept stands in conf/experiment/load_sweep.yaml; any other key of a run
may be overridden too. The sweep's folder gets load_sweep.csv (a row a run), load_sweep.png and one run folder a run.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from airi_sim.core.errors import BadInput
from airi_sim.results import style
from airi_sim.results.slo import highest_rate
from airi_sim.results.text import digits, percent, seconds
from airi_sim.workbench.comparison import with_policies
from airi_sim.workbench.config import load_config, plain
from airi_sim.workbench.execute import execute
from experiments.parts import listed, numbers, start

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Point(NamedTuple):
    """One run of the sweep: which, and what came out (seconds, tokens/s, share; None where undefined)."""

    policies: str
    load: float
    seed: int
    finished: int
    output_tokens_per_s: float
    ttft_p50_s: float | None
    ttft_p99_s: float | None
    tpot_p50_s: float | None
    slo_attainment: float | None


PANELS = {
    "ttft_p50_s": "Time to first token, p50 (s)",
    "ttft_p99_s": "Time to first token, p99 (s)",
    "slo_attainment": "Requests within the SLO (%)",
}


def sweep(overrides: Sequence[str]) -> tuple[Path, list[Point]]:
    """Run everything; returns the folder of the sweep and its points."""
    base = load_config(["experiment=load_sweep", *overrides])
    what, folder = plain(base)["sweep"], Path(base.hydra.run.dir)
    points = []
    for name, load, seed in combinations(what):
        place = folder / name / f"load-{load:g}" / f"seed-{seed}"
        config = load_config(["experiment=load_sweep", *overrides, f"{what['key']}={load}", f"seed={seed}"])
        print(f"{name} at {what['key']}={load:g}, seed {seed}", file=sys.stderr)
        summary = execute(with_policies(plain(config), what["policies"][name]), place)
        points.append(point(name, load, seed, summary))
    return folder, points


def combinations(what: dict[str, Any]) -> Iterator[tuple[str, float, int]]:
    """Every set of policies at every load with every seed. BadInput if there is nothing to run."""
    loads, seeds = numbers("sweep.values", what["values"]), listed("sweep.seeds", what["seeds"])
    if not isinstance(what["policies"], dict) or not what["policies"]:
        raise BadInput(f"sweep.policies must be sets of policies by name, at least one, not {what['policies']!r}.")
    for name in what["policies"]:
        for load in loads:
            for seed in seeds:
                yield name, load, seed


def point(name: str, load: float, seed: int, summary: dict[str, Any]) -> Point:
    """The figures of one run."""
    return Point(
        name,
        load,
        seed,
        summary["requests"]["finished"],
        summary["throughput"]["output_tokens_per_s"],
        summary["ttft_s"]["p50"],
        summary["ttft_s"]["p99"],
        summary["tpot_s"]["p50"],
        summary["slo"]["attainment"],
    )


def mean(points: Iterable[Point], name: str, load: float, figure: str) -> float:
    """Mean of a figure over the seeds; nan where it is undefined."""
    values = [getattr(p, figure) for p in points if p.policies == name and p.load == load]
    known = [value for value in values if value is not None]
    return fmean(known) if known else float("nan")


def goodput(points: Sequence[Point]) -> str:
    """Up to which load 90 % of the requests keep their promises (DistServe's goodput), for the terminal."""
    lines = []
    for name in dict.fromkeys(p.policies for p in points if p.slo_attainment is not None):
        loads = sorted({p.load for p in points if p.policies == name})
        best = highest_rate(loads, [mean(points, name, load, "slo_attainment") for load in loads])
        upto = "at no load" if best is None else f"up to {best.rate:.3g}" + (" or more" if not best.bounded else "")
        lines.append(f"{name}: 90 % in SLO {upto}")
    return "\n".join(lines)


def write_table(points: Sequence[Point], path: Path) -> None:
    """A row a run, as csv."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Point._fields)
        writer.writerows(points)


def table(points: Sequence[Point]) -> str:
    """The means over the seeds, for the terminal."""
    rows = [("policies", "load", "output tokens/s", "TTFT p50", "TTFT p99", "in SLO")]
    for name, load in dict.fromkeys((p.policies, p.load) for p in points):
        rate, p50, p99, met = (
            mean(points, name, load, figure)
            for figure in ("output_tokens_per_s", "ttft_p50_s", "ttft_p99_s", "slo_attainment")
        )
        rows.append((name, f"{load:g}", digits(rate), seconds(p50), seconds(p99), percent(met)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows])


def draw(points: Sequence[Point], key: str, path: Path) -> None:
    """One panel a figure, one line a set of policies (mean over the seeds; a dot a run)."""
    made, panels = style.figure(columns=len(PANELS), height=3.2)
    made.set_facecolor("white")
    names = list(dict.fromkeys(p.policies for p in points))
    colours = [style.SERIES[i % len(style.SERIES)] for i in range(len(names))]
    for axes, (figure, title) in zip(panels, PANELS.items(), strict=True):
        for name, colour in zip(names, colours, strict=True):
            line(axes, [p for p in points if p.policies == name], figure, colour)
        style.titled(axes, title, key)
    for axes in panels[:2]:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.minorticks_off()
    panels[2].yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f}")
    panels[2].set_ylim(0, 1.04)
    made.legend(
        panels[0].get_lines()[1::2], names, loc="outside lower center", ncols=len(names), frameon=False,
        labelcolor="linecolor",
    )  # fmt: skip
    made.savefig(path, dpi=160)


def line(axes: Axes, points: Sequence[Point], figure: str, colour: str) -> None:
    """The means as a line, every run as a dot."""
    known = [(p.load, getattr(p, figure)) for p in points if getattr(p, figure) is not None]
    axes.plot([load for load, _ in known], [value for _, value in known], ".", color=colour, ms=4, alpha=0.5)
    loads = sorted({p.load for p in points})
    axes.plot(loads, [mean(points, points[0].policies, load, figure) for load in loads], color=colour, lw=1.7)


def main(overrides: Sequence[str]) -> int:
    """Sweep, print the table, write table and picture; returns the exit code (2: bad input)."""
    try:
        folder, points = sweep(overrides)
    except BadInput as error:
        print(f"load_sweep: {error}", file=sys.stderr)
        return 2
    write_table(points, folder / "load_sweep.csv")
    draw(points, plain(load_config(["experiment=load_sweep", *overrides]))["sweep"]["key"], folder / "load_sweep.png")
    print(table(points))
    print(goodput(points))
    print(f"table and picture: {folder / 'load_sweep.csv'}, {folder / 'load_sweep.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(start(main, __doc__))

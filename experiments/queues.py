"""Who should be next? A dozen orders of the queue in front of one replica, on the Azure conversation trace.

    python -m experiments.queues
    python -m experiments.queues workload.limit=1000 'queues.loads=[2,3]'

Question: what does an order do to the mean and to the tail, to short and to long requests, to tenants, and from which
load on does it matter? Every order sees the same requests at the same moments. The trace says neither who sends a
request nor by when it is wanted, so each gets a tenant with a priority and a deadline, drawn once by `seed`: orders
that look at those have something to look at. Slowdown is the time a request took over the time it takes with the
replica to itself, which is measured first, request by request, in a run of their own with one in flight at a time.

What is compared stands in conf/experiment/queues.yaml. The folder gets queues.csv (a row a run), queues.png, the
labelled requests (requests.jsonl) and a run folder a run. Without the trace a synthetic stand-in runs, and it says so.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from airi_sim.core.errors import BadInput
from airi_sim.core.types import Item
from airi_sim.results import style
from airi_sim.results.run import load as load_run
from airi_sim.results.text import digits, percent, seconds
from airi_sim.workbench.build import build_workload
from airi_sim.workbench.comparison import with_policies
from airi_sim.workbench.config import load_config, plain
from airi_sim.workbench.execute import execute
from airi_sim.workbench.plugins import group_node
from airi_sim.workload.checks import real, whole
from airi_sim.workload.writer import write_jsonl
from experiments.parts import start

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


class Tenant(NamedTuple):
    """Who sends: a share of the requests (relative to the others'), how urgent, and due how long after arrival."""

    name: str
    share: float
    priority: int
    deadline_s: float

    @classmethod
    def of(cls, name: str, node: Any) -> Tenant:
        """From `queues.tenants.NAME`; BadInput for anything but these three numbers."""
        key = f"queues.tenants.{name}"
        if not isinstance(node, Mapping) or set(node) != {"share", "priority", "deadline_s"}:
            raise BadInput(f"{key} needs share, priority and deadline_s, and nothing else, not {node!r}.")
        share, deadline_s = (real(f"{key}.{part}", node[part], positive=True) for part in ("share", "deadline_s"))
        return cls(name, share, whole(f"{key}.priority", node["priority"], 0), deadline_s)


class Point(NamedTuple):
    """One run: an order at a load, and what came out. Seconds; slowdown is a ratio; `service_apart` is the largest
    difference of service between two tenants that both wait (weighted tokens), `jain` its evenness (1 is even)."""

    order: str
    load: float
    ttft_mean_s: float
    ttft_p99_s: float
    e2e_mean_s: float
    e2e_p99_s: float
    slowdown_mean: float
    slowdown_p99: float
    service_apart: float
    jain: float
    in_time: float
    preemptions: int


PANELS = {
    "ttft_{}_s": "Time to first token (s)",
    "e2e_{}_s": "End to end (s)",
    "slowdown_{}": "Slowdown (ratio)",
    "service_apart": "Service gap (tokens)",
}
"""Titles by figure, `{}` is mean or p99."""


def compare(overrides: Sequence[str]) -> tuple[Path, list[Point]]:
    """Label the requests, time each alone, run every order at every load; returns the folder and the points."""
    loaded = load_config(["experiment=queues", *overrides])
    config, folder = plain(loaded), Path(loaded.hydra.run.dir)
    what = config["queues"]
    for part, form in {"loads": list, "tenants": dict, "sets": dict}.items():
        if not what[part] or not isinstance(what[part], form):
            raise BadInput(f"queues.{part} must be a {form.__name__} with at least one entry, not {what[part]!r}.")
    loads = [real("queues.loads", load, positive=True) for load in what["loads"]]
    if broken := [name for name, chosen in what["sets"].items() if not isinstance(chosen, dict)]:
        raise BadInput(f"queues.sets.{broken[0]} must be kinds of policies and their names: {{queue: fcfs}}.")
    sets = {name: with_policies(config, chosen) for name, chosen in what["sets"].items()}
    items = labelled(config)
    folder.mkdir(parents=True, exist_ok=True)
    trace = folder / "requests.jsonl"
    write_jsonl(items, trace)
    due = [item.request.deadline - item.request.arrival for item in items]

    print("every request alone", file=sys.stderr)
    alone = run(config, trace, folder / "alone", concurrency=1)["e2e_s"]
    points = []
    for load in loads:
        for name, chosen in sets.items():
            print(f"{name} at load {load:g}", file=sys.stderr)
            place = folder / name / f"load-{load:g}"
            frame = run(chosen, trace, place, rate_scale=load)
            points.append(point(name, load, frame, alone, due, load_run(place).summary))
    return folder, points


def labelled(config: Mapping[str, Any]) -> list[Item]:
    """The workload with a tenant for each request, drawn by its share, and the tenant's priority and deadline."""
    workload, _ = build_workload(config)
    for warning in getattr(workload, "warnings", ()):
        print(warning, file=sys.stderr)
    tenants = [Tenant.of(name, node) for name, node in config["queues"]["tenants"].items()]
    random, shares = Random(config["seed"]), [one.share for one in tenants]
    items = []
    for request, output in workload:
        who = random.choices(tenants, shares)[0]
        due = request.arrival + who.deadline_s
        items.append(Item(replace(request, tenant=who.name, priority=who.priority, deadline=due), output))
    return items


def run(config: Mapping[str, Any], trace: Path, place: Path, **how: Any) -> pd.DataFrame:
    """One run of the labelled requests; its requests by number, with `ttft_s` and `e2e_s`."""
    node = {**group_node("workload", "trace"), "path": str(trace), "format": "airi", **how}
    execute({**config, "workload": node, "results": {**config["results"], "tables": True}}, place)
    frame = load_run(place).requests.set_index("request").sort_index()
    return frame.assign(ttft_s=frame.first_token_s - frame.arrival_s, e2e_s=frame.finish_s - frame.arrival_s)


def point(
    name: str, load: float, frame: pd.DataFrame, alone: pd.Series, due: Sequence[float], summary: Mapping[str, Any]
) -> Point:
    """The figures of one run."""
    slowdown = frame.e2e_s / alone
    return Point(
        order=name,
        load=load,
        ttft_mean_s=summary["ttft_s"]["mean"],
        ttft_p99_s=summary["ttft_s"]["p99"],
        e2e_mean_s=summary["e2e_s"]["mean"],
        e2e_p99_s=summary["e2e_s"]["p99"],
        slowdown_mean=float(slowdown.mean()),
        slowdown_p99=float(slowdown.quantile(0.99)),
        service_apart=summary["fairness"]["max_service_difference"],
        jain=summary["fairness"]["jain"],
        in_time=float((frame.e2e_s <= due).mean()),
        preemptions=summary["preemptions"],
    )


def write_table(points: Sequence[Point], path: Path) -> None:
    """A row a run, as csv."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Point._fields)
        writer.writerows(points)


def table(points: Sequence[Point]) -> str:
    """For the terminal, load by load."""
    rows: list[tuple[str, ...]] = []
    rows.append(
        ("load", "order", "TTFT", "p99", "E2E", "p99", "slowdown", "p99", "apart", "Jain", "in time", "preempted")
    )
    rows += [row_of(one) for one in points]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join([row[0].rjust(widths[0]), row[1].ljust(widths[1]), *map(str.rjust, row[2:], widths[2:])])
        for row in rows
    )


def row_of(one: Point) -> tuple[str, ...]:
    """One line of the table."""
    times = (one.ttft_mean_s, one.ttft_p99_s, one.e2e_mean_s, one.e2e_p99_s)
    ratios = (f"{one.slowdown_mean:.2f}", f"{one.slowdown_p99:.1f}", digits(one.service_apart), f"{one.jain:.3f}")
    return f"{one.load:g}", one.order, *map(seconds, times), *ratios, percent(one.in_time), f"{one.preemptions:,}"


def draw(points: Sequence[Point], path: Path) -> None:
    """A panel a figure, a row an order, a colour a load (of the first eight): a full dot is the mean, an open one the
    99th percentile."""
    orders, loads = (list(dict.fromkeys(values)) for values in zip(*[(p.order, p.load) for p in points], strict=True))
    made, panels = style.figure(columns=len(PANELS), height=1.2 + 0.26 * len(orders))
    made.set_facecolor("white")
    for axes, (figure, title) in zip(panels, PANELS.items(), strict=True):
        for i, (one, colour) in enumerate(zip(loads, style.SERIES, strict=False)):
            places = {order: row + 0.5 * ((i + 0.5) / len(loads) - 0.5) for row, order in enumerate(orders)}
            dots(axes, [p for p in points if p.load == one], figure, places, colour, f"load {one:g}")
        style.titled(axes, title)
        axes.title.set_fontsize(10)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}" if value < 1e4 else f"{value / 1e3:,g}k")
        axes.minorticks_off()
        axes.grid(True, axis="x", color=style.GRID, linewidth=0.7)
        axes.set_yticks(range(len(orders)), orders)
        axes.tick_params(labelleft=axes is panels[0])
        axes.invert_yaxis()
    made.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2 * len(loads), frameon=False,
        fontsize=9, handletextpad=0.2,
    )  # fmt: skip
    made.savefig(path, dpi=160)


def dots(
    axes: Axes, points: Sequence[Point], figure: str, places: Mapping[str, float], colour: str, label: str
) -> None:
    """Mean and 99th percentile of one figure at one load; the service gap is one value a run."""
    rows = [places[one.order] for one in points]
    values = [getattr(one, figure.format("mean")) for one in points]
    axes.plot(values, rows, "o", color=colour, ms=4, label=f"{label}: mean")
    if "{}" in figure:
        tails = [getattr(one, figure.format("p99")) for one in points]
        axes.plot(tails, rows, "o", color=colour, ms=4, mfc="none", label="p99")


def main(overrides: Sequence[str]) -> int:
    """Compare, print the table, write table and picture; returns the exit code (2: bad input)."""
    try:
        folder, points = compare(overrides)
    except BadInput as error:
        print(f"queues: {error}", file=sys.stderr)
        return 2
    write_table(points, folder / "queues.csv")
    draw(points, folder / "queues.png")
    print(table(points))
    print(f"table and picture: {folder / 'queues.csv'}, {folder / 'queues.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(start(main, __doc__))

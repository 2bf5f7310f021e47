"""Who was served when: an A10G under FCFS and VTC as logged, and as simulated with the same queue objects.

    python -m experiments.vtc_logs
    python -m experiments.vtc_logs 'vtc_logs.loads=[overload]'

Question: does a simulated queue share the machine among its clients as the real one did, and does VTC keep its bound in
both worlds? The logs are those of the VTC artifact (data.dir/vtc; Llama-2-7B, two to eight clients), the engine is that
of conf, whose coefficients were fitted to the first 500 requests of one log (docs/validation.md). Service is prompt
tokens + 2 * output tokens; prompts are booked at the first token, because the logs do not say when a request started.
A client is backlogged while one of its requests waits for its first token. The folder gets vtc_logs.csv, a row a run,
and vtc_logs.png.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from airi_sim.core.errors import BadInput
from airi_sim.results import style
from airi_sim.results.columns import Columns, Floats
from airi_sim.results.fairness import OUTPUT_WEIGHT, PROMPT_WEIGHT, Tenant, fairness, overlapping, tenants
from airi_sim.results.text import percent
from airi_sim.workbench.config import load_config, plain
from airi_sim.workbench.fidelity import vtc
from airi_sim.workbench.fidelity.simulate import simulate
from experiments.parts import start

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ORDERS = {"FCFS": "fcfs", "VTC": "vtc"}
PROMPT, MEMORY = 256, 10_000
"""Tokens of a prompt, and of KV that the engine held at most."""
BOUND = 2 * max(PROMPT_WEIGHT * PROMPT, OUTPUT_WEIGHT * MEMORY)
"""Of the service difference between two clients while both are backlogged, under VTC (Sheng et al., theorem 4.4)."""
STEP_S = 1.0
NOTE = "a colour a client: lines simulated, dots measured; difference: blue simulated, vermilion measured, dashed FCFS"


@dataclass(frozen=True)
class World:
    """One run in one world: its clients by name, the largest service difference, when it was over."""

    clients: dict[str, Tenant]
    difference: float
    end_s: float


class Result(NamedTuple):
    """A run in both worlds. curve_error: the largest distance between the service curves of a client, over the
    service it got in all."""

    load: str
    order: str
    clients: int
    measured_s: float
    simulated_s: float
    measured_difference: float
    simulated_difference: float
    curve_error: float


def world(log: vtc.Recording, first: Floats, finish: Floats) -> World:
    """The run as tables of the log, for the same code that judges simulated runs."""
    output = log.output.tolist()
    times = [column.tolist() for column in (log.arrival, first, finish)]
    requests, jobs = [], []
    for i, (at, begun, done) in enumerate(zip(*times, strict=True)):
        requests.append((i, client(log.tenants[i]), *[""] * 3, at, begun, done, PROMPT, output[i], 0, "finished", ""))
        jobs.append((i, i, "generate", *[""] * 3, at, begun, begun, done, PROMPT, output[i], 0, 0, "finished"))
    end = float(finish.max())
    tables = Columns("requests", requests), Columns("jobs", jobs)
    told = {one.name: one for one in sorted(tenants(*tables, end), key=lambda one: one.name)}
    return World(told, float(fairness(*tables, end)["max_service_difference"] or 0.0), end)


def client(adapter: str) -> str:
    """A name one can read: the logs name clients by their adapter."""
    return f"client {int(adapter.rpartition('-')[2]) + 1}"


def replay(config: dict[str, Any], folder: Path, load: str, order: str) -> tuple[World, World]:
    """The run as measured and as simulated."""
    log = vtc.recording(folder / f"{order}_{load}.jsonl")
    times = simulate(vtc.engine(config, ORDERS[order]), log.items)
    return world(log, log.first, log.finish), world(log, times.first, times.finish)


def result(load: str, order: str, measured: World, simulated: World) -> Result:
    """The figures of a run."""
    grid = np.arange(0.0, max(measured.end_s, simulated.end_s) + STEP_S, STEP_S)
    errors = [
        np.abs(one.service.at(grid) - measured.clients[name].service.at(grid)).max() / one.service.total
        for name, one in simulated.clients.items()
    ]
    return Result(
        load,
        order,
        len(errors),
        measured.end_s,
        simulated.end_s,
        measured.difference,
        simulated.difference,
        float(max(errors)),
    )


def growth(clients: Sequence[Tenant], times: Floats) -> Floats:
    """At each time the largest service difference so far of any two clients, over intervals in which both were
    backlogged all along; 0 where no two are."""
    found = np.zeros(len(times))
    for u, v in combinations(clients, 2):
        ahead = u.service.at(times) - v.service.at(times)
        for begin, end in zip(*overlapping([u.backlog, v.backlog]), strict=True):
            inside = (times >= begin) & (times < end)
            now = ahead[inside]
            found[inside] = np.maximum(found[inside], np.maximum.accumulate(now) - np.minimum.accumulate(now))
    return found


def curves(axes: Axes, measured: World, simulated: World) -> None:
    """Service of each client: simulated as a line, measured as dots."""
    for name, colour in zip(measured.clients, (*style.SERIES[:6], style.MUTED, style.INK), strict=False):
        for told, look in ((simulated, {"lw": 1.3}), (measured, {"ls": "", "marker": "o", "ms": 2.6, "mew": 0})):
            grid = np.linspace(0, told.end_s, 30 if told is measured else 400)
            axes.plot(grid, told.clients[name].service.at(grid) / 1e3, color=colour, **look)


def differences(axes: Axes, worlds: dict[str, tuple[World, World]]) -> None:
    """The largest difference so far: FCFS dashed, VTC drawn through, and the bound."""
    for order, both in worlds.items():
        for source, told in zip(("torch", "sim"), both, strict=True):
            grid = np.arange(0.0, told.end_s, STEP_S)
            grown = np.maximum.accumulate(growth(list(told.clients.values()), grid))
            width, alpha = (3.5, 0.5) if source == "torch" else (1.3, 1.0)
            line = "--" if order == "FCFS" else "-"
            axes.plot(grid, grown / 1e3, line, color=style.SOURCES[source], lw=width, alpha=alpha)
    axes.axhline(BOUND / 1e3, color=style.INK, lw=0.9, ls=":")
    axes.text(1.0, BOUND / 1.1e3, "bound", transform=axes.get_yaxis_transform(), ha="right", va="top", fontsize=8)
    axes.set_yscale("log")
    axes.set_ylim(0.5, 1500)
    axes.set_xlim(left=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.minorticks_off()


def draw(worlds: dict[str, dict[str, tuple[World, World]]], path: Path) -> None:
    """A row a load: service under FCFS, service under VTC, and the difference over time."""
    made, panels = style.figure(columns=3, rows=len(worlds), height=2.5 * len(worlds) + 0.6)
    made.set_facecolor("white")
    for i, (load, orders) in enumerate(worlds.items()):
        row = panels[3 * i : 3 * i + 3]
        for axes, (order, both) in zip(row, orders.items(), strict=False):
            curves(axes, *both)
            style.titled(axes, f"{order}: {load}", "", "service (1000 tokens)" if order == "FCFS" else "")
        differences(row[2], orders)
        style.titled(row[2], "Largest difference", "", "so far (1000 tokens)")
    for axes in panels[-3:]:
        axes.set_xlabel("time (s)", fontsize=9.5, color=style.MUTED)
    made.supxlabel(NOTE, fontsize=9, color=style.MUTED)
    made.savefig(path, dpi=90)


def write(results: Sequence[Result], path: Path) -> None:
    """A row a run, as csv."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Result._fields)
        writer.writerows(results)


def table(results: Sequence[Result]) -> str:
    """For the terminal."""
    head = f"{'':20} {'':7} {'total time':^21} {f'difference (bound {BOUND:,.0f})':^21} {'curves':>8}"
    names = (
        f"{'run':20} {'clients':>7} {'measured':>10} {'simulated':>10} {'measured':>10} {'simulated':>10} {'off by':>8}"
    )
    return "\n".join([head, names, *map(_line, results)])


def _line(one: Result) -> str:
    return (
        f"{one.order + ' ' + one.load:20} {one.clients:7} {one.measured_s:8.0f} s {one.simulated_s:8.0f} s "
        f"{one.measured_difference:10,.0f} {one.simulated_difference:10,.0f} {percent(one.curve_error):>8}"
    )


def main(overrides: Sequence[str]) -> int:
    """Replay, print, write table and picture; returns the exit code (2: bad input)."""
    try:
        loaded = load_config(["experiment=vtc_logs", *overrides])
        config, folder = plain(loaded), Path(loaded.hydra.run.dir)
        worlds = replay_all(config)
    except BadInput as error:
        print(f"vtc_logs: {error}", file=sys.stderr)
        return 2
    results = [result(load, order, *both) for load, orders in worlds.items() for order, both in orders.items()]
    folder.mkdir(parents=True, exist_ok=True)
    write(results, folder / "vtc_logs.csv")
    draw(worlds, folder / "vtc_logs.png")
    print(table(results))
    print(f"table and picture: {folder / 'vtc_logs.csv'}, {folder / 'vtc_logs.png'}")
    return 0


def replay_all(config: dict[str, Any]) -> dict[str, dict[str, tuple[World, World]]]:
    """Every load under both orders. BadInput where a log is not there."""
    folder, loads = Path(config["data"]["dir"]) / "vtc", config["vtc_logs"]["loads"]
    if not loads:
        raise BadInput("vtc_logs.loads is empty: give at least one.")
    missing = [path for load in loads for order in ORDERS if not (path := folder / f"{order}_{load}.jsonl").is_file()]
    if missing:
        raise BadInput(f"'{missing[0]}' is not there: point data.dir to the reference data, or choose other loads.")
    return {load: {order: replay(config, folder, load, order) for order in ORDERS} for load in loads}


if __name__ == "__main__":
    sys.exit(start(main, __doc__))

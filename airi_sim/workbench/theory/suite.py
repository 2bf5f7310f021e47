"""`airi validate validate=theory`: every experiment, its rows as checks, a table and a picture."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from airi_sim.core.errors import BadInput, unknown
from airi_sim.results.text import digits
from airi_sim.workbench.execute import check_folder
from airi_sim.workbench.progress import Progress
from airi_sim.workbench.theory.rows import Experiment, Row, perform

FAMILIES = (
    "one_server", "orders", "preemption", "many_servers", "networks", "batches", "lockstep", "lifecycle", "caches",
    "hardware", "books", "fairness",
)  # fmt: skip
"""Modules of `families`, in the order of the table."""
Task = tuple[str, int]
"""A family and the number of an experiment in it."""


def theory(config: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Run what `theory.*` asks for, write theory.md and theory.png, return the checks."""
    wanted = config["theory"]
    check(wanted)
    check_folder(folder)
    rows = run(families(wanted["families"]), config["seed"], wanted["quick"], wanted["effort"], wanted["workers"])
    folder.mkdir(parents=True, exist_ok=True)
    write(rows, folder)
    return [row.check() for row in rows]


def check(wanted: Mapping[str, Any]) -> None:
    """BadInput for a key of `theory` that cannot be."""
    known = {"quick", "families", "effort", "workers"}
    for key in wanted:
        if key not in known:
            raise unknown("key of theory", str(key), sorted(known))
    if not isinstance(wanted["quick"], bool):
        raise BadInput(f"theory.quick={wanted['quick']} must be true or false.")
    effort, workers = wanted["effort"], wanted["workers"]
    if isinstance(effort, bool) or not isinstance(effort, int | float) or not 0 < effort <= 100:
        raise BadInput(f"theory.effort={effort} must be a number above 0, at most 100: it multiplies the customers.")
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
        raise BadInput(f"theory.workers={workers} must be a whole number from 1, or null for one a core.")


def families(wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The families of a list; BadInput for one that does not exist."""
    if wanted is not None and (isinstance(wanted, str) or not wanted):
        raise BadInput(f"theory.families={wanted} must be a list such as [orders, networks], or null for all.")
    for name in wanted or ():
        if name not in FAMILIES:
            raise unknown("family of theory.families", name, FAMILIES)
    return tuple(wanted or FAMILIES)


@cache
def experiments(family: str) -> list[Experiment]:
    """Of one family, in the order of the table. Some forms take a second to solve, so they are kept."""
    found: list[Experiment] = import_module(f"airi_sim.workbench.theory.families.{family}").experiments()
    return found


def run(
    names: Sequence[str], seed: int = 0, quick: bool = False, effort: float = 1.0, workers: int | None = 1
) -> list[Row]:
    """The rows of these families. `quick`: only the experiments marked so. The rows do not depend on `workers`."""
    tasks = [(family, i) for family in names for i, one in enumerate(experiments(family)) if one.quick or not quick]
    progress = Progress("comparing with theory", every_s=2.0)
    rows: list[Row] = []
    try:
        for i, found in enumerate(_each(tasks, seed, effort, workers or os.cpu_count() or 1), 1):
            rows += found
            failed = sum(not row.passed for row in rows)
            progress.say(f"{i} of {len(tasks)} experiments, {len(rows)} rows, {failed} failed")
    finally:
        progress.close()
    return rows


def _each(tasks: Sequence[Task], seed: int, effort: float, workers: int) -> Iterator[list[Row]]:
    """The rows of each task, in order."""
    if workers == 1:
        yield from (_one(task, seed, effort) for task in tasks)
        return
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        yield from pool.map(_one, tasks, [seed] * len(tasks), [effort] * len(tasks))


def _one(task: Task, seed: int, effort: float) -> list[Row]:
    family, number = task
    return perform(experiments(family)[number], family, seed, effort)


def table(rows: Sequence[Row]) -> str:
    """The rows as a markdown table, errors and limits in percent of the closed form, and how many passed."""
    lines = ["| row | tag | closed form | engine | error | limit | source |", "|---|---|---|---|---|---|---|"]
    lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
    passed = sum(row.passed for row in rows)
    return "\n".join([*lines, "", f"{passed} of {len(rows)} rows within their limits."])


def _cells(row: Row) -> tuple[str, ...]:
    def share(value: float) -> str:
        return f"{100 * value / abs(row.closed_form):.2f} %" if row.closed_form else digits(value)

    name = row.name if row.passed else f"**{row.name}**"
    return name, row.tag, f"{row.closed_form:.5g}", f"{row.engine:.5g}", share(row.error), share(row.limit), row.source


def write(rows: Sequence[Row], folder: Path) -> None:
    """theory.md, the table; theory.png, errors beside limits. Everything there is about a row is in checks.json."""
    from airi_sim.workbench.theory.picture import draw

    (folder / "theory.md").write_text(table(rows) + "\n")
    draw(rows).savefig(folder / "theory.png", dpi=100, facecolor="white")

"""Reports of run folders and of comparisons, with the command that makes them again."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airi_sim.results.compare import compare
from airi_sim.results.parity import Choice, Parity
from airi_sim.results.report import report
from airi_sim.results.run import Run, load

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Kept:
    """A comparison as its folder holds it."""

    name: str
    sim: Run
    measured: Run
    repeat: Run | None
    table: pd.DataFrame
    parity: Parity


def keep_parity(parity: Parity, folder: Path) -> None:
    """Write what a replay found, so that the report can be made again."""
    (folder / "parity.json").write_text(json.dumps(asdict(parity), indent=1))


def load_comparisons(folder: Path) -> list[Kept]:
    """The comparisons that `airi compare` left in a folder, by name; none if it is no such folder."""
    places = sorted(path.parent for path in folder.glob("**/parity.json"))
    return [_load(place, str(place.relative_to(folder)) if place != folder else "") for place in places]


def _load(place: Path, name: str) -> Kept:
    sim, measured = load(place / "sim"), load(place / "measured")
    repeat = load(place / "repeat") if (place / "repeat").is_dir() else None
    return Kept(name, sim, measured, repeat, compare(sim, measured, repeat), _parity(place / "parity.json"))


def _parity(path: Path) -> Parity:
    kept = json.loads(path.read_text())
    for side in ("a", "b"):
        kept[side] = None if kept[side] is None else Choice(*kept[side])
    kept["before"] = tuple(Choice(*choice) for choice in kept["before"])
    return Parity(**kept)


def report_run(folder: Path) -> Path:
    """`report.html` of one run, in its folder."""
    return report([load(folder)], folder / "report.html", command=command_line())


def report_runs(folders: Sequence[Path]) -> Path:
    """One report of several runs, in the folder of the first."""
    return report([load(folder) for folder in folders], folders[0] / "report.html")


def report_comparison(found: Sequence[Any], folder: Path) -> Path:
    """`report.html` of all policy sets of a comparison."""
    return report(found, folder / "report.html", command=command_line())


def command_line() -> str:
    """What the user typed, if it was the `airi` command; notebooks have none."""
    if Path(sys.argv[0]).name not in ("airi", "cli.py", "__main__.py"):
        return ""
    return shlex.join(["airi", *sys.argv[1:]])

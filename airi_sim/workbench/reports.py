"""Reports of run folders and of comparisons, with the command that makes them again."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from airi_sim.results.report import Pair, report
from airi_sim.results.run import load


def report_run(folder: Path) -> Path:
    """`report.html` of one run, in its folder."""
    return report([load(folder)], folder / "report.html", command=command_line())


def report_runs(folders: Sequence[Path]) -> Path:
    """One report of several runs, in the folder of the first."""
    return report([load(folder) for folder in folders], folders[0] / "report.html")


def report_comparison(found: Sequence[Pair], folder: Path) -> Path:
    """`report.html` of all policy sets of a comparison."""
    return report(found, folder / "report.html", command=command_line())


def command_line() -> str:
    """What the user typed, if it was the `airi` command; notebooks have none."""
    if Path(sys.argv[0]).name not in ("airi", "cli.py", "__main__.py"):
        return ""
    return shlex.join(["airi", *sys.argv[1:]])

"""The tables of performance.md: `make performance`, or `python docs/performance.py FOLDER`.

FOLDER is the run folder of an `airi bench`. Its table and a fresh profile take the place of the old ones, with where
and how they were made.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections import Counter
from collections.abc import Sequence
from cProfile import Profile
from datetime import date
from pathlib import Path
from pstats import Stats

from airi_sim.workbench.build import build
from airi_sim.workbench.cases import case_of
from airi_sim.workbench.config import load_config, plain

DOCUMENT = Path(__file__).with_name("performance.md")
SHOWN = 14
"""Rows of the profile."""


def bench_of(folder: Path) -> str:
    """The table of a bench, and a line about the machine."""
    rows = json.loads((folder / "bench.json").read_text())
    repeats = max(len(row["runs"]) for row in rows)
    machine = f"Python {platform.python_version()}, {os.cpu_count()} cores, {processor()}"
    made = f"{date.today():%Y-%m-%d}, {machine}; medians of {repeats}, cases of 200,000 requests and more ran once."
    return f"{(folder / 'bench.md').read_text()}\n{made}"


def processor() -> str:
    """Its name, where the system tells."""
    cpus = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*:\s*(.+)$", cpus.read_text(), re.MULTILINE) if cpus.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def profile_of(case: str) -> str:
    """Shares of the loop by file, those with the largest first."""
    config = plain(load_config(case_of(case, None).overrides))
    world = build(config)
    with Profile() as profile:
        world.driver.run(iter(world.workload))
    spent: Counter[str] = Counter()
    for (file, _, _), (_, _, seconds, _, _) in Stats(profile).stats.items():  # type: ignore[attr-defined]
        spent[place_of(file)] += seconds
    rows = [f"| {name} | {seconds / spent.total():.1%} |" for name, seconds in spent.most_common(SHOWN)]
    return "\n".join(["| file | share |", "|---|---:|", *rows])


def place_of(file: str) -> str:
    """The file within its package."""
    if "/" not in file:
        return "builtins"
    return "/".join(Path(file).parts[-3:] if "airi_sim" in file else Path(file).parts[-2:])


def update(text: str, name: str, table: str) -> str:
    """The document with another table between the two marks of that name."""
    place = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)", re.DOTALL)
    if not place.search(text):
        sys.exit(f"the document has no place for it: <!-- {name} --> and <!-- /{name} --> on lines of their own.")
    return place.sub(lambda _: f"\n{table}\n\n", text)


def main(words: Sequence[str]) -> int:
    """Put both tables into the document; returns the exit code (2: no run folder of a bench)."""
    missing = [name for name in ("bench.json", "bench.md") if len(words) == 1 and not (Path(words[0]) / name).is_file()]
    if len(words) != 1 or missing:
        what = f"'{words[0]}' has no {missing[0]}" if missing else "one folder is needed"
        print(f"performance: {what}: name the run folder of an airi bench.", file=sys.stderr)
        return 2
    folder = Path(words[0])
    text = update(DOCUMENT.read_text(), "bench", bench_of(folder))
    DOCUMENT.write_text(update(text, "profile", profile_of("W1")))
    print(f"tables: {DOCUMENT}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The picture of the README: `make docs`, or `python docs/img/readme.py [FOLDER]`.

FOLDER is what `airi compare experiment=quickstart` printed as its run folder; without it the comparison runs now (a
minute or two). Each policy set is a row: simulated over measured, and measured again to show what noise alone does.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from matplotlib.axes import Axes

from airi_sim.results import style
from airi_sim.results.columns import Columns, Floats
from airi_sim.results.metrics import latencies
from airi_sim.results.run import Run, load
from airi_sim.workbench.cli import main as airi

PICTURE = Path(__file__).with_name("sim_over_measured.png")
METRICS = {"ttft_s": "Time to first token", "tpot_s": "Time per output token", "e2e_s": "End to end"}
WORLDS = {
    "repeat": ("measured again", {"color": style.SOURCES["torch"], "lw": 1.2, "alpha": 0.45}),
    "measured": ("measured (torch)", {"color": style.SOURCES["torch"], "lw": 1.8}),
    "sim": ("simulated", {"color": style.SOURCES["sim"], "lw": 1.8}),
}
"""Folders of a comparison, in the order in which they are drawn."""


def draw(folder: Path, picture: Path) -> None:
    """A row a policy set, a column a metric."""
    sets = [path.parent for path in sorted(folder.glob("*/sim"), key=lambda path: path.stat().st_mtime)]
    if not sets:
        sys.exit(f"'{folder}' holds no comparison: give the folder of an `airi compare` with named policy sets.")
    made, panels = style.figure(columns=len(METRICS), rows=len(sets), height=0.5 + 2.3 * len(sets))
    made.set_facecolor("white")
    for place, one in enumerate(sets):
        row = panels[place * len(METRICS) : (place + 1) * len(METRICS)]
        draw_set(row, {name: load(one / name) for name in WORLDS if (one / name).is_dir()})
        row[0].set_ylabel(f"{one.name.replace('+', ' + ')}\nshare of requests", fontsize=9.5, color=style.INK)
        if not place:
            for axes, title in zip(row, METRICS.values(), strict=True):
                axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=style.INK)
    lines = panels[0].get_lines()[::-1]
    made.legend(lines, [str(line.get_label()) for line in lines], loc="outside lower center", ncols=3, frameon=False)
    made.savefig(picture, dpi=150)


def draw_set(row: list[Axes], runs: dict[str, Run]) -> None:
    """The distributions of one policy set, a panel a metric."""
    times = {
        name: latencies(Columns("requests", run.requests), Columns("jobs", run.jobs)) for name, run in runs.items()
    }
    for axes, metric in zip(row, METRICS, strict=True):
        samples = {name: defined(found[metric]) for name, found in times.items()}
        for name, sample in samples.items():
            label, look = WORLDS[name]
            share = np.arange(1, len(sample) + 1) / len(sample)
            axes.step(*style.thin(sample, share), where="post", label=label, **look)
        style.duration_axis(axes, list(samples.values()))
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
        axes.tick_params(labelleft=axes is row[0])


def defined(values: Floats) -> Floats:
    """The values that are defined, in order."""
    return np.sort(values[~np.isnan(values)])


def main(words: list[str]) -> None:
    """Draw the given comparison, or a fresh one."""
    with TemporaryDirectory() as fresh:
        folder = Path(words[0]) if words else Path(fresh)
        if not words and airi(["compare", "experiment=quickstart", f"hydra.run.dir={fresh}"]):
            sys.exit("the comparison failed; the picture stays as it was.")
        draw(folder, PICTURE)
    print(f"picture: {PICTURE} ({PICTURE.stat().st_size / 1e3:.0f} kB)")


if __name__ == "__main__":
    main(sys.argv[1:])

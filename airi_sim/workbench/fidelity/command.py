"""`airi validate validate=fidelity`: every data set that is there, scored, printed, drawn and checked."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd

from airi_sim.core.errors import BadInput, unknown
from airi_sim.workbench.execute import check_folder
from airi_sim.workbench.fidelity import DATASETS
from airi_sim.workbench.fidelity.pictures import draw
from airi_sim.workbench.fidelity.rows import Options, Row
from airi_sim.workbench.fidelity.scores import Score, error, peers, scores, text

Check = dict[str, Any]
LIMITS: dict[tuple[str, str, str], tuple[float, ...]] = {
    ("sim2real", "effective", "e2e_mean"): (6.0, 9.0),
    ("sim2real", "effective", "itl_mean"): (6.0, 9.0),
    ("sim2real", "effective", "ttft_mean"): (15.0,),
    ("sim2real", "held_out", "e2e_mean"): (8.0, 11.0),
    ("sim2real", "held_out", "itl_mean"): (8.0, 11.0),
    ("sim2real", "held_out", "ttft_mean"): (17.0,),
    ("splitwise", "in_sample", "prompt"): (6.0,),
    ("splitwise", "in_sample", "token"): (5.0, 5.0),
    ("replays", "RTXPRO6000", "e2e_mean"): (3.0,),
    ("replays", "RTXPRO6000", "tpot_mean"): (3.0,),
    ("replays", "RTXPRO6000", "ttft_mean"): (6.0,),
    ("replays", "RTX4090", "e2e_mean"): (5.0,),
    ("replays", "RTX4090", "tpot_mean"): (5.0,),
    ("replays", "RTX4090", "ttft_mean"): (6.0,),
    ("vtc", "", "total_time"): (3.0, 3.0),
    ("vtc", "", "ttft_mean"): (10.0, 10.0),
    ("unseen", "h100-sxm", "gemm"): (15.0,),
    ("unseen", "h200-sxm", "gemm"): (15.0,),
    ("unseen", "a100-sxm-80", "gemm"): (25.0,),
    ("unseen", "l40s", "gemm"): (25.0,),
}
"""Median (and mean) error in percent that are aimed for, by data set, mode and metric; tests hold the same."""


def fidelity(config: Mapping[str, Any], folder: Path) -> list[Check]:
    """Score the chosen data sets; writes fidelity.csv (a line a figure) and pictures, returns the checks."""
    check_folder(folder)
    wanted = config["fidelity"]
    names, data = _names(wanted["datasets"]), data_folder(config)
    options = Options(config, wanted["seeds"], tuple(wanted["runs"] or ()), tuple(wanted["modes"]), wanted["workers"])
    rows = [row for name in names for row in scored(name, data, options)]
    if not rows:
        raise BadInput(f"there is nothing to score in '{data}': set data.dir to a folder with the recorded runs.")
    found = scores(rows)
    folder.mkdir(parents=True, exist_ok=True)
    frame(rows).to_csv(folder / "fidelity.csv", index=False)
    draw(rows, folder)
    print(text(found + peers(data, rows)))
    return checks(found)


def data_folder(config: Mapping[str, Any]) -> Path:
    """Where recorded runs lie: `fidelity.folder`, else `data.dir`."""
    folder = Path(config["fidelity"]["folder"] or config["data"]["dir"])
    if not folder.is_dir():
        raise BadInput(f"there is no folder '{folder}': set data.dir (or AIRI_DATA) to where recorded runs lie.")
    return folder


def scored(name: str, data: Path, options: Options) -> list[Row]:
    """The rows of one data set; none, and a line that says why, where its files are absent."""
    module = import_module(f"airi_sim.workbench.fidelity.{name}")
    missing = [file for file in module.NEEDS if not (data / file).exists()]
    if missing:
        print(f"{name}: skipped, {missing[0]} is not there", file=sys.stderr)
        return []

    def say(what: str) -> None:
        print(f"{name}: {what}", file=sys.stderr, flush=True)

    return [replace(row, dataset=name) for row in module.score(data, options, say)]


def frame(rows: list[Row]) -> pd.DataFrame:
    """A line a row, with its error in percent."""
    return pd.DataFrame([{**vars(row), "ape": error(row)} for row in rows])


def checks(found: list[Score]) -> list[Check]:
    """One for each median and mean that has a limit."""
    made = []
    for score in found:
        limits = LIMITS.get((score.dataset, score.mode, score.metric), ())
        for what, limit in zip(("median", "mean"), limits, strict=False):
            figure = getattr(score, what)
            made.append(
                {
                    "name": f"{score.name} {what}", "figure": figure, "limit": limit, "unit": "%",
                    "passed": figure <= limit, "detail": f"{figure:.1f} % over {score.runs} runs (limit {limit:g} %)",
                }
            )  # fmt: skip
    return made


def _names(datasets: list[str] | None) -> list[str]:
    if datasets is not None and (not isinstance(datasets, list) or not datasets):
        raise BadInput(f"fidelity.datasets={datasets} must be a list such as [sim2real, vtc], or null for all.")
    for name in datasets or ():
        if name not in DATASETS:
            raise unknown("data set of fidelity.datasets", str(name), DATASETS)
    return list(datasets or DATASETS)

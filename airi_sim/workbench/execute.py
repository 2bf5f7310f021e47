"""One run from config to run folder."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

from omegaconf import OmegaConf

from airi_sim import __version__
from airi_sim.core.errors import BadInput
from airi_sim.core.log import TABLES
from airi_sim.engine.backends import Backend
from airi_sim.results.metrics import summarise, write_summary
from airi_sim.results.tables import write_tables
from airi_sim.workbench.blame import blaming
from airi_sim.workbench.build import World, build
from airi_sim.workbench.measurements import write_measurements
from airi_sim.workbench.paths import PACKAGE
from airi_sim.workbench.prices import prices_of
from airi_sim.workbench.progress import Progress

OUTPUTS = ("report.html", "timeline.json.gz", "measurements.parquet", *[f"{name}.parquet" for name in TABLES])
"""Files of a run folder that not every run writes."""


def execute(config: Mapping[str, Any], folder: Path, label: str = "") -> dict[str, Any]:
    """Run a config and write its run folder; returns the summary. Nothing is written before the run is over."""
    perform(config, folder, None, label)
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def perform(config: Mapping[str, Any], folder: Path, backend: Backend | None, label: str) -> World:
    """Build, run and write; returns the world with everything it logged."""
    progress = Progress(label or ("measuring" if config["backend"]["name"] != "sim" else "simulating"))
    check_folder(folder)
    try:
        with blaming(config):
            world = build(config, backend, progress)
            cpu, wall = time.process_time(), time.perf_counter()
            duration = world.driver.run(iter(world.workload))
            engine = _engine(world, time.process_time() - cpu, time.perf_counter() - wall)
    finally:
        progress.close()
    summary = summarise(
        world.log.rows,
        engine=engine,
        provenance=provenance(world, config),
        slo=config["slo"],
        prices=prices_of(world, config["cost"]),
        duration_s=duration,
        servers=len(world.runtime.servers),
        decisions_hash=world.log.decisions_hash(),
    )
    write_run(config, folder, world, summary)
    return world


def write_run(config: Mapping[str, Any], folder: Path, world: World, summary: dict[str, Any]) -> None:
    """The run folder: tables, summary, config, and what else was asked for.

    Files are made in a folder beside it and moved at the end, so an interrupted run leaves nothing incomplete.
    """
    created = next((parent for parent in reversed([folder, *folder.parents]) if not parent.exists()), None)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryDirectory(prefix=".airi-", dir=folder) as staging:
            _write_files(config, Path(staging), world, summary)
            for name in OUTPUTS:  # what an earlier run left here is not about this one
                (folder / name).unlink(missing_ok=True)
            for file in sorted(Path(staging).iterdir()):
                file.replace(folder / file.name)
    except BaseException:
        if created is not None:
            shutil.rmtree(created, ignore_errors=True)
        raise
    if config["results"]["report"]:
        from airi_sim.workbench.reports import report_run

        report_run(folder)


def _write_files(config: Mapping[str, Any], folder: Path, world: World, summary: dict[str, Any]) -> None:
    if config["results"]["tables"]:
        write_tables(world.log.rows, folder, world.backend.source)
        write_measurements(world.backend, folder)
    OmegaConf.save(OmegaConf.create(dict(config)), folder / "config.yaml")
    write_summary(folder, summary)
    if config["results"]["timeline"]:
        from airi_sim.results.timeline import write_timeline

        write_timeline(world.log.rows, folder / "timeline.json.gz")


def check_folder(folder: Path) -> None:
    """BadInput before any work if the run folder cannot be written."""
    try:
        place = next(path for path in [folder, *folder.absolute().parents] if path.exists())
        if not place.is_dir():
            raise NotADirectoryError(20, f"{place} is a file")
        with TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise BadInput(
            f"the output folder '{folder}' cannot be written ({error.strerror}); choose another one with "
            "hydra.run.dir=DIR."
        ) from None


def _engine(world: World, cpu_s: float, wall_s: float) -> dict[str, Any]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "cpu_s": cpu_s,
        "wall_s": wall_s,
        "events": world.driver.events,
        "peak_rss_mb": peak / (1 << 20 if sys.platform == "darwin" else 1 << 10),
    }


def provenance(world: World, config: Mapping[str, Any]) -> dict[str, Any]:
    """Where the figures come from, and what should make one doubt them."""
    accelerator = world.generate.deployment.accelerator
    calibrated = world.backend.source == "torch" or getattr(accelerator, "profile", None) is not None
    warnings = [*world.warnings, *getattr(world.workload, "warnings", [])]
    for executor in world.driver.executors[:1]:
        warnings += getattr(getattr(executor, "cost", None), "notes", ())
    warnings += outcomes(world.log.requests)
    return {
        "version": __version__,
        "git": git_commit(),
        "seed": config["seed"],
        "source": world.backend.source,
        "calibrated": calibrated,
        "warnings": warnings,
    }


def outcomes(requests: Sequence[Sequence[Any]]) -> list[str]:
    """What did not go as the workload said: a sentence each for requests cut short and requests turned away."""
    found = []
    long = sum(1 for row in requests if row[-1] == "length")
    if long:
        found.append(f"{long} requests were cut short by the length limit (reason 'length' in requests.parquet).")
    for status in ("rejected", "failed"):
        reasons = [row[-1] for row in requests if row[-2] == status]
        if reasons:
            found.append(f"{len(reasons)} requests were {status}, the first because: {reasons[0]} (requests.parquet).")
    return found


def git_commit() -> str:
    """The commit of the checkout this runs from, empty outside one."""
    command = ["git", "-C", str(PACKAGE), "rev-parse", "--short", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()

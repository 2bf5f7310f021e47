"""One run from config to run folder."""

from __future__ import annotations

import gc
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from omegaconf import OmegaConf

from airi_sim import __version__
from airi_sim.core.errors import BadInput
from airi_sim.core.log import TABLES
from airi_sim.engine.backends import Backend
from airi_sim.results.columns import Columns
from airi_sim.results.metrics import clean, summarise, write_summary
from airi_sim.results.parts import PARTIAL, PASSES
from airi_sim.results.recorder import Recorder
from airi_sim.workbench.blame import blaming
from airi_sim.workbench.build import World, build
from airi_sim.workbench.doubts import doubted
from airi_sim.workbench.interrupts import Interrupted, Interrupts
from airi_sim.workbench.leaks import check_leaks
from airi_sim.workbench.measurements import write_measurements
from airi_sim.workbench.paths import PACKAGE
from airi_sim.workbench.prices import prices_of
from airi_sim.workbench.progress import Progress
from airi_sim.workbench.staging import Staging
from airi_sim.workbench.watch import Watch

OUTPUTS = ("report.html", "timeline.json.gz", *[f"{name}.parquet" for name in (*TABLES, PASSES)], PARTIAL)
"""What not every run leaves in its folder."""
COLLECT = (400_000, 20, 100)
"""Thresholds of the garbage collector while a run goes on (Python's own: 700, 10, 10)."""


def execute(config: Mapping[str, Any], folder: Path, label: str = "") -> dict[str, Any]:
    """Run a config and write its run folder; returns the summary. Rows of a long simulated run go to files while it
    runs, so memory follows what is in flight; a short one writes nothing before it is over."""
    perform(config, folder, None, label, stream=True)
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def perform(
    config: Mapping[str, Any], folder: Path, backend: Backend | None, label: str, *, stream: bool = False
) -> World:
    """Build, run and write; returns the world, with everything it logged unless the rows of a simulated run may
    `stream` to files. A measured run that is interrupted is written too, and Interrupted raised then."""
    check_folder(folder)
    staging = Staging(folder)
    progress = Progress(label or ("measuring" if config["backend"]["name"] != "sim" else "simulating"))
    with Interrupts() as interrupts:
        try:
            with blaming(config):
                world = build(config, backend, progress)
            watch = _watch(config, world, folder, interrupts)
            with recording(config, world, staging, stream, watch) as recorder:
                engine = _simulate(config, watch, recorder)
                progress.close()
                _write_files(config, staging, watch, recorder, engine)
                staging.publish(OUTPUTS)
        finally:
            progress.close()
            staging.discard()
    if watch.stopped is not None:
        raise Interrupted(watch.stopped.signal, f"interrupted; what was measured so far is in {folder}")
    if config["results"]["report"]:
        from airi_sim.workbench.reports import report_run

        report_run(folder)
    return world


def _watch(config: Mapping[str, Any], world: World, folder: Path, interrupts: Interrupts) -> Watch:
    def head() -> dict[str, Any]:
        _write_config(config, folder / PARTIAL)
        return {**_told(config, world), "provenance": provenance(world, config, [])}

    every_s = config["results"]["checkpoint_s"] if config["results"]["tables"] else None
    return Watch(world, folder / PARTIAL, every_s, interrupts, head)


def _told(config: Mapping[str, Any], world: World) -> dict[str, Any]:
    """What a summary needs to know that is in no table."""
    replicas = sum(plan.deployment.replicas for plan in world.plans)
    return {"slo": config["slo"], "weights": tenant_weights(world), "servers": replicas}


def tenant_weights(world: World) -> Mapping[str, float] | None:
    """What each tenant's share of service is measured against: the weights of the first queue that has some."""
    weights = (plan.policies["queue"].get("weights") for plan in world.plans)
    return next((named for named in weights if named), None)


@contextmanager
def recording(
    config: Mapping[str, Any], world: World, staging: Staging, stream: bool, watch: Watch
) -> Iterator[Recorder]:
    """The recorder of a run. What a long run finished before it failed is kept, and said; nothing is kept of a run that
    went through and is refused afterwards (BadInput of hardware.strict)."""
    recorder = Recorder(world.log, world.backend.source, staging.path)
    world.log.sink = recorder if stream and world.backend.source == "sim" else None
    try:
        yield recorder
    except BaseException as error:
        if not (isinstance(error, BadInput) and recorder.closed):
            _keep(config, staging, recorder, watch, error)
        else:
            watch.discard()
        raise


def _keep(config: Mapping[str, Any], staging: Staging, recorder: Recorder, watch: Watch, error: BaseException) -> None:
    """Leave what was written before a run failed, and say where."""
    if watch.wrote:
        watch.flush(" ".join(str(error).split()) or type(error).__name__)
        print(f"the run failed; airi report {staging.folder} shows what was measured until then", file=sys.stderr)
    if recorder.spilled:
        finished = len(recorder.close()["requests"])
        _write_config(config, staging.path())
        place = staging.keep(PARTIAL)
        print(f"the run failed; the rows of {finished:,} requests that were over are in {place}", file=sys.stderr)


def _simulate(config: Mapping[str, Any], watch: Watch, recorder: Recorder) -> dict[str, Any]:
    """Run the world; what it took. Writing rows is no part of the loop."""
    cpu, wall = time.process_time(), time.perf_counter()
    with blaming(config), rarely_collecting():
        duration = watch.run()
        check_leaks(watch.world)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall  # before the collector looks at the tables
    spent = cpu - recorder.cpu_s - watch.cpu_s
    return {"cpu_s": spent, "wall_s": wall, "events": watch.world.driver.events, "duration_s": duration}


@contextmanager
def rarely_collecting() -> Iterator[None]:
    """Runs leave few cycles behind, and looking for them among all that is in flight takes up to a fifth of the loop:
    look less often."""
    before = gc.get_threshold()
    gc.set_threshold(*COLLECT)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _write_files(
    config: Mapping[str, Any], staging: Staging, watch: Watch, recorder: Recorder, engine: dict[str, Any]
) -> None:
    """The run folder: tables, summary, config, and what else was asked for."""
    world, tables = watch.world, recorder.close()
    folder = staging.path()
    summary = summarise(
        tables,
        duration_s=engine.pop("duration_s"),
        engine=engine,
        provenance=ended(provenance(world, config, tables["requests"]), watch),
        prices=prices_of(world, config["cost"]),
        decisions_hash=world.log.decisions_hash(),
        findings=getattr(world.backend, "findings", dict)(),
        **_told(config, world),
    )
    summary = clean(doubted(world, summary, tables, config["hardware"]["strict"]))
    if config["results"]["timeline"]:
        from airi_sim.results.timeline import write_timeline

        write_timeline(tables, folder / "timeline.json.gz")
    if config["results"]["tables"]:
        recorder.write()
        write_measurements(world.backend, folder)
    else:
        recorder.drop()
    _write_config(config, folder)
    summary["engine"]["peak_rss_mb"] = peak_rss_mb()
    write_summary(folder, summary)


def ended(origin: dict[str, Any], watch: Watch) -> dict[str, Any]:
    """Provenance, which says so where the run was interrupted."""
    if watch.stopped is None:
        return origin
    name = watch.stopped.signal.name
    text = f"interrupted ({name}): requests that were under way are unfinished, those still to come are in no table."
    return origin | {"interrupted": name, "warnings": [*origin["warnings"], text]}


def _write_config(config: Mapping[str, Any], folder: Path) -> None:
    OmegaConf.save(OmegaConf.create(dict(config)), folder / "config.yaml")


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


def peak_rss_mb() -> float:
    """The most memory this process has held. Linux tells it of this program alone; elsewhere, and by getrusage, the
    process it was forked from counts too."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def provenance(world: World, config: Mapping[str, Any], requests: Any) -> dict[str, Any]:
    """Where the figures come from, and what should make one doubt them; `requests` is their table."""
    accelerator = world.generate.deployment.accelerator
    calibrated = world.backend.source == "torch" or getattr(accelerator, "confidence", "") == "measured"
    warnings = [*world.warnings, *getattr(world.workload, "warnings", []), *getattr(world.backend, "notes", ())]
    for executor in world.driver.executors[:1]:
        warnings += getattr(getattr(executor, "cost", None), "notes", ())
    warnings += outcomes(Columns("requests", requests))
    return {
        "version": __version__,
        "git": git_commit(),
        "seed": config["seed"],
        "source": world.backend.source,
        "calibrated": calibrated,
        "warnings": warnings,
    }


def outcomes(requests: Columns) -> list[str]:
    """What did not go as the workload said: a sentence each for requests cut short and requests turned away."""
    found = []
    status, reason = requests.texts("status"), requests.texts("reason")
    long = int((reason == "length").sum())
    if long:
        found.append(f"{long} requests were cut short by the length limit (reason 'length' in requests.parquet).")
    for name in ("rejected", "failed"):
        reasons = reason[status == name]
        if len(reasons):
            found.append(f"{len(reasons)} requests were {name}, the first because: {reasons[0]} (requests.parquet).")
    return found


def git_commit() -> str:
    """The commit of the checkout this runs from, empty outside one."""
    command = ["git", "-C", str(PACKAGE), "rev-parse", "--short", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()

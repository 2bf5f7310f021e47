"""One config in both worlds: measure, calibrate on what ran beside the measurement, simulate, replay, compare.

The cost model is fitted on calibration batches that were interleaved with the measured passes outside the clock, never
on the passes it predicts. The replay puts the measured durations into the simulator: every decision must be the same.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from airi_sim.core.errors import BadInput
from airi_sim.engine.backends import ReplayBackend
from airi_sim.engine.executors import ReplayEnded
from airi_sim.hardware.again import refitted
from airi_sim.results.parity import Parity, first_divergence
from airi_sim.workbench.build import World, build, build_backend
from airi_sim.workbench.compared import PROFILE, Comparison, keep_parity, load_comparison
from airi_sim.workbench.execute import execute, perform
from airi_sim.workbench.measurements import durations, measured_passes
from airi_sim.workbench.plugins import group_node, maker
from airi_sim.workbench.speculation import pin_acceptance


def compare_all(config: Mapping[str, Any], folder: Path) -> list[Comparison]:
    """A comparison for each policy set of `compare.policies` (or for the policies of the config). What cannot work is
    refused before anything is measured."""
    check_clock(config, "compare")
    check_profile(config)
    sets = config["compare"]["policies"] or {"": {}}
    for name in sets:
        if "/" in str(name):
            raise BadInput(f"compare.policies: the set '{name}' has a slash in its name, which names a folder too.")
    configs = {str(name): with_policies(config, chosen) for name, chosen in sets.items()}
    return [compare_one(name, one, folder / name) for name, one in configs.items()]


def check_profile(config: Mapping[str, Any]) -> None:
    """BadInput if there will be nothing to predict with."""
    given = config["compare"]["profile"]
    if given:
        build(simulated(config, Path(given)))
    elif not config["backend"].get("cocalibrate", True):
        raise BadInput(
            "compare calibrates beside the measured run: set backend.cocalibrate=true, or give a profile that airi "
            "calibrate wrote as compare.profile=PROFILE.json."
        )


def with_policies(config: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The config with some policies replaced, by name or by node; BadInput if one of them cannot be made."""
    copy = deepcopy(dict(config))
    for kind, policy in chosen.items():
        if kind not in copy["policy"]:
            raise BadInput(f"compare.policies: '{kind}' is no kind of policy; there are {', '.join(copy['policy'])}.")
        named = isinstance(policy, str)
        copy["policy"][kind] = group_node(f"policy/{kind}", policy, copy["seed"]) if named else policy
        maker(kind, copy["policy"][kind])
    return copy


def compare_one(name: str, config: Mapping[str, Any], folder: Path) -> Comparison:
    """Measure (twice, for the noise floor), calibrate, simulate, replay."""
    title = f"{name}: " if name else ""
    backend = build_backend(config)
    world = perform(config, folder / "measured", backend, f"{title}measuring")
    profile = _profile(config, backend, folder)
    repeat = config["compare"]["repeat"]
    if repeat:
        again = {**config, "backend": {**config["backend"], "cocalibrate": False}}
        execute(again, folder / "repeat", label=f"{title}measuring again, for the noise floor")
    pinned = pin_memory(config, world)
    predicted = pin_acceptance(pinned, world.log.spans, folder)
    execute(simulated(predicted, profile), folder / "sim", label=f"{title}simulating")
    _self_fit(predicted, profile, world, folder)
    keep_parity(replay(pinned, world).parity, folder)
    return load_comparison(folder, name, repeat)


def _self_fit(config: Mapping[str, Any], profile: Path, world: World, folder: Path) -> None:
    """Simulate once more, in sample: with the cost model fitted on the passes that it predicts."""
    found = refitted(json.loads(profile.read_text()), measured_passes(world.backend))
    shutil.rmtree(folder / "selffit", ignore_errors=True)
    if found is not None:
        path = folder / "selffit.json"
        path.write_text(json.dumps(found, indent=1))
        execute(simulated(config, path), folder / "selffit", label="simulating with the fit to the run itself")


def _profile(config: Mapping[str, Any], backend: Any, folder: Path) -> Path:
    """The profile to predict with, kept beside the runs: a given one, or the fit of what was sampled beside the
    measured passes."""
    given = config["compare"]["profile"]
    path = folder / PROFILE
    path.write_text(Path(given).read_text() if given else json.dumps(backend.profile(), indent=1))
    return path


def pin_memory(config: Mapping[str, Any], world: World) -> dict[str, Any]:
    """The config with the KV blocks that the measured run really had."""
    copy = deepcopy(dict(config))
    copy["pools"] = {name: dict(pool) for name, pool in (copy["pools"] or {"default": copy["pool"]}).items()}
    for plan in world.plans:
        pool = copy["pools"].get(plan.deployment.family or plan.deployment.name)
        if pool is not None and plan.deployment.kind == "generate":
            pool["server"] = {**(pool.get("server") or {}), "kv_blocks": plan.deployment.kv_blocks}
    return copy


def simulated(config: Mapping[str, Any], profile: Path) -> dict[str, Any]:
    """The same config in the simulated world, on the calibrated device."""
    copy = deepcopy(dict(config))
    copy["precision"] = copy["backend"]["precision"]
    copy["backend"] = {"name": "sim"}
    copy["accelerator"] = {**group_node("accelerator", "profile"), "path": str(profile)}
    for pool in (copy["pools"] or {}).values():
        pool.pop("accelerator", None)
    return copy


@dataclass(frozen=True)
class Replay:
    """A measured run, its durations put into the simulator."""

    parity: Parity
    apart_s: float
    """The largest difference of any time of any request; the arithmetic is the same, so it must be 0."""


def replay(config: Mapping[str, Any], measured: World) -> Replay:
    """Run the config again in the simulator with the measured durations, and compare decisions and times."""
    config = pin_acceptance(config, measured.log.spans)
    world = build({**config, "precision": config["backend"]["precision"]}, ReplayBackend(durations(measured.backend)))
    try:
        world.driver.run(iter(world.workload))
    except ReplayEnded as error:
        print(f"replay: {error}", file=sys.stderr)
    return Replay(first_divergence(measured.log.decisions, world.log.decisions), apart(measured, world))


def apart(one: World, other: World) -> float:
    """The largest difference in seconds between the times of the same requests; infinite if one lacks some."""
    mine, theirs = ({row[0]: row[5:8] for row in world.log.requests} for world in (one, other))
    if mine.keys() != theirs.keys():
        return inf
    pairs = [pair for request in mine for pair in zip(mine[request], theirs[request], strict=True)]
    if any((a is None) != (b is None) for a, b in pairs):
        return inf
    return max((abs(a - b) for a, b in pairs if a is not None), default=0.0)


def check_clock(config: Mapping[str, Any], verb: str) -> None:
    """BadInput where measured durations could not be replayed: on the wall clock replicas take turns."""
    if config["backend"]["name"] == "sim":
        raise BadInput(f"{verb} measures too: give it a backend that does (backend=torch), not backend=sim.")
    if config["backend"].get("clock") == "wall":
        raise BadInput(
            f"{verb} needs backend.clock=work: on the wall clock the replicas share the device by turns, which the "
            "simulator does not repeat; use airi run backend=torch backend.clock=wall."
        )

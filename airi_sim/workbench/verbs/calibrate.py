"""airi calibrate: a hardware profile, measured on the device at hand or fitted to published op timings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from airi_sim.core.errors import BadInput
from airi_sim.workbench.build import build_backend, build_workload, sized_pools
from airi_sim.workbench.config import load_config, plain, show_config
from airi_sim.workbench.execute import check_folder
from airi_sim.workbench.folders import run_folder
from airi_sim.workbench.objects import instantiate
from airi_sim.workbench.progress import Progress


def command(overrides: Sequence[str], show: bool = False) -> int:
    """Write a profile and print what it says: of the op tables of calibrate.ops, else of passes of every kind of pool,
    sampled within the limits of its server on a backend that measures."""
    named = any(word.startswith(("backend=", "calibrate.ops=")) for word in overrides)
    config = load_config([*overrides] if named else ["backend=torch", *overrides])
    if show:
        return show_config(config)
    values = plain(config)
    if values["calibrate"]["path"]:
        return write(values, Path(values["calibrate"]["path"]))
    with run_folder(config, overrides) as folder:
        return write(values, folder / "profile.json")


def write(values: Mapping[str, Any], path: Path) -> int:
    """Calibrate, write the profile to `path`, and print what it says."""
    check_folder(path.parent)
    if values["calibrate"]["ops"] is not None:
        profile = imported(values)
        text, model = text_of_ops(profile), ""
    else:
        profile = measure(values)
        text, model = text_of(profile, values["calibrate"]["samples"]), f"model={profile['model']} "
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(profile, indent=1))
    print(text)
    print(f"profile: {path}")
    print(f"next: airi run accelerator=profile accelerator.path={path} {model}precision={profile['precision']}")
    return 0


def imported(config: Mapping[str, Any]) -> dict[str, Any]:
    """The physics profile of the op tables at calibrate.ops. `accelerator` gives the data sheet and says whose rows are
    meant, `model` whose layers where a table times those of models."""
    from airi_sim.hardware.importers import read_ops
    from airi_sim.hardware.physics import physics_profile

    node = config["calibrate"]
    device, model = instantiate(config["accelerator"], "accelerator"), instantiate(config["model"], "model")
    paths = [node["ops"]] if isinstance(node["ops"], str) else node["ops"]
    found = read_ops(paths, node["device"] or device.name, config["precision"], model)
    return physics_profile(found, device, config["precision"], node["table"])


def text_of_ops(profile: Mapping[str, Any]) -> str:
    """What the terminal shows of a physics profile: each family with its error, then what no timing said."""
    lines = [f"{profile['datasheet']['name']} in {profile['precision']}, fitted to op timings:"]
    for kind, one in profile["families"].items():
        dropped = f", {one['dropped']:,} impossible ones dropped" if one["dropped"] else ""
        lines.append(
            f"  {kind}: {one['samples']:,} timings{dropped}, error {100 * one['median']:.1f} % median, "
            f"{100 * one['p90']:.0f} % at p90"
        )
    for engine, pairs in profile["collectives"].items():
        lines.append(f"  all-reduce of {engine}: {', '.join(pairs)} ranks")
    if profile["taken"]["families"]:
        lines.append(f"  as {profile['taken']['from']} has them: {', '.join(profile['taken']['families'])}")
    return "\n".join(lines)


def measure(config: Mapping[str, Any]) -> dict[str, Any]:
    """The profile of the first pool that generates, with the services that run beside it."""
    backend: Any = build_backend(config)
    if not hasattr(backend, "calibrate"):
        raise BadInput("calibrate measures: give it a backend that does (backend=torch), not backend=sim.")
    workload, _ = build_workload(config)
    deployments = [plan.deployment for plan in sized_pools(config, workload.hash_block, backend)]
    first = {deployment.kind: deployment for deployment in reversed(deployments)}
    ordered = sorted(first.values(), key=lambda deployment: deployment.kind == "generate")
    samples, seconds = config["calibrate"]["samples"], config["calibrate"]["seconds"] / len(ordered)
    for deployment in ordered:
        progress = Progress(f"calibrating {deployment.name}")
        profile: dict[str, Any] = backend.calibrate(deployment, samples, seconds, partial(_tell, progress, samples))
        progress.close()
    return profile


def _tell(progress: Progress, of: int, taken: int) -> None:
    progress.say(f"{taken:,} of {of:,} passes")


def text_of(profile: Mapping[str, Any], wanted: int) -> str:
    """What the terminal shows: the device, and for each kind how well the fit describes what was measured."""
    head = f"{profile['model']} in {profile['precision']} on {profile['device']}:"
    return "\n".join([head, *(_line(kind, section, wanted) for kind, section in profile["kinds"].items())])


def _line(kind: str, section: Mapping[str, Any], wanted: int) -> str:
    taken = section["samples"]
    short = "" if taken >= wanted else f" (of {wanted:,}: calibrate.seconds were over)"
    return f"  {kind}: {taken:,} passes{short}, residual {100 * section['residual_rel']:.0f} % of a pass"

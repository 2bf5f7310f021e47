"""airi calibrate: measure the device at hand and write its hardware profile."""

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
from airi_sim.workbench.progress import Progress


def command(overrides: Sequence[str], show: bool = False) -> int:
    """Sample passes of every kind of pool within the limits of its server, fit, write the profile, print its path."""
    named = any(word.startswith("backend=") for word in overrides)
    config = load_config([*overrides] if named else ["backend=torch", *overrides])
    if show:
        return show_config(config)
    values = plain(config)
    path = Path(values["calibrate"]["path"] or Path(config.hydra.run.dir) / "profile.json")
    check_folder(path.parent)
    profile = measure(values)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(profile, indent=1))
    print(text_of(profile, values["calibrate"]["samples"]))
    print(f"profile: {path}")
    print(
        f"next: airi run accelerator=profile accelerator.path={path} model={profile['model']} "
        f"precision={profile['precision']}"
    )
    return 0


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

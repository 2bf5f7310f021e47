"""airi validate: checks that carry the claims; 1 if one fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from airi_sim.core.errors import BadInput, unknown
from airi_sim.workbench.build import build_backend
from airi_sim.workbench.comparison import check_clock, pin_memory, replay
from airi_sim.workbench.config import load_config, plain, show_config
from airi_sim.workbench.execute import perform
from airi_sim.workbench.folders import run_folder
from airi_sim.workbench.paths import options

Check = dict[str, Any]


def command(overrides: Sequence[str], show: bool = False) -> int:
    """Do the checks that `validate=` names, print a line each, write checks.json; 1 if one failed."""
    name = chosen(overrides)
    config = load_config(overrides)
    if show:
        return show_config(config)
    with run_folder(config, overrides) as folder:
        checks = VALIDATIONS[name](plain(config), folder)
        (folder / "checks.json").write_text(json.dumps(checks, indent=1))
    for check in checks:
        print(f"{verdict(check)}  {check['name']}: {check['detail']}")
    print(f"checks: {folder / 'checks.json'}")
    return 0 if all(check["passed"] for check in checks) else 1


def verdict(check: Mapping[str, Any]) -> str:
    """ok, FAIL, or `open` where the run was too noisy to tell (which is no pass either)."""
    if check["passed"]:
        return "ok  "
    return "open" if check.get("noisy") else "FAIL"


def chosen(overrides: Sequence[str]) -> str:
    """The validation that the command line names; BadInput lists them."""
    names = [word.removeprefix("validate=") for word in overrides if word.startswith("validate=")]
    if not names:
        raise BadInput(f"say what to validate: {', '.join(f'validate={name}' for name in options('validate'))}.")
    if names[-1] not in options("validate"):
        raise unknown("validation", names[-1], options("validate"))
    return names[-1]


def parity(config: Mapping[str, Any], folder: Path) -> list[Check]:
    """Measured runs, replayed: the same decisions, at the same times. One for each of `parity.settings`, what it says
    put over the config; without settings one of the config as it is."""
    check_clock(config, "validate=parity")
    settings = config["parity"]["settings"] or {"": {}}
    configs = {str(name): merged(config, changes) for name, changes in settings.items()}
    return [check for name, one in configs.items() for check in _replayed(name, one, folder / name)]


def _replayed(name: str, config: Mapping[str, Any], folder: Path) -> list[Check]:
    world = perform(config, folder, build_backend(config), f"{name}: measuring" if name else "measuring")
    found = replay(pin_memory(config, world), world)
    passes = sum(server.passes for server in world.runtime.servers)
    preemptions = sum(row[13] for row in world.log.jobs)
    swaps = sum(row[4].startswith("swap out") for row in world.log.decisions)
    head = f"{name}: " if name else ""
    return [
        {
            "name": f"{head}replay parity", "figure": found.parity.same, "limit": found.parity.total,
            "unit": "decisions", "passed": found.parity.identical,
            "detail": f"{found.parity} ({passes:,} measured passes, {preemptions:,} preemptions, {swaps:,} by swap)",
        },
        {
            "name": f"{head}replay times", "figure": found.apart_s, "limit": 0.0, "unit": "s",
            "passed": found.apart_s == 0,
            "detail": f"{found.apart_s:g} s at most between the times of a request measured and replayed",
        },
    ]  # fmt: skip


def merged(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The config with some keys changed; BadInput for a key that it does not have."""
    copy = dict(config)
    for key, value in changes.items():
        if key not in copy:
            raise unknown("key of parity.settings", str(key), [str(known) for known in copy])
        both = isinstance(value, Mapping) and isinstance(copy[key], Mapping)
        copy[key] = merged(copy[key], value) if both else value
    return copy


def fidelity(config: Mapping[str, Any], folder: Path) -> list[Check]:
    """Recorded runs of real systems, simulated again and scored."""
    from airi_sim.workbench.fidelity.command import fidelity as scored

    return scored(config, folder)


def theory(config: Mapping[str, Any], folder: Path) -> list[Check]:
    """The engine against closed forms of queueing theory."""
    from airi_sim.workbench.theory.suite import theory as compared

    return compared(config, folder)


VALIDATIONS: dict[str, Callable[[Mapping[str, Any], Path], list[Check]]] = {
    "parity": parity,
    "fidelity": fidelity,
    "theory": theory,
}

"""airi compare: the same config simulated and measured, side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from airi_sim.core.errors import BadInput
from airi_sim.results.compare import format_table
from airi_sim.results.text import service_lines
from airi_sim.workbench.compared import Comparison
from airi_sim.workbench.comparison import compare_all
from airi_sim.workbench.config import load_config, plain, show_config
from airi_sim.workbench.folders import run_folder
from airi_sim.workbench.reports import report_comparison


def command(overrides: Sequence[str], show: bool = False) -> int:
    """Compare, print a table for each policy set, write the report; 1 if a replay took another decision."""
    named = any(word.startswith("backend=") for word in overrides)
    config = load_config([*overrides] if named else ["backend=torch", *overrides])
    if show:
        return show_config(config)
    check_sets(overrides, config)
    with run_folder(config, overrides) as folder:
        found = compare_all(plain(config), folder)
        checks = [check for comparison in found for check in checks_of(comparison)]
        (folder / "checks.json").write_text(json.dumps(checks, indent=1))
        report = report_comparison(found, folder)
    print("\n\n".join([text_of(comparison) for comparison in found]))
    print(f"\nreport: {report}")
    print("next: compare others, e.g. compare.policies='{sjf: {queue: sjf}}', or your own: docs/extending.md has one.")
    return 0 if all(check["passed"] for check in checks) else 1


def check_sets(overrides: Sequence[str], config: DictConfig) -> None:
    """BadInput where a policy of the command line would go unheard, because the sets of the config replace it."""
    sets = config.compare.policies
    for word in overrides:
        kind = word.lstrip("+").removeprefix("policy/").removeprefix("policy.").partition("=")[0].partition(".")[0]
        if word.lstrip("+").startswith(("policy/", "policy.")) and sets and any(kind in one for one in sets.values()):
            raise BadInput(
                f"'{word}' would go unheard: the sets of compare.policies choose the {kind}; add compare.policies=null "
                "to compare this one config, or name your own sets with compare.policies={name: {...}}."
            )


def checks_of(comparison: Comparison) -> list[dict[str, Any]]:
    """The lines of checks.json: parity must hold, the error is reported beside its floors."""
    parity = comparison.parity
    name = comparison.name or "config"
    loads = comparison.loads
    told = [] if loads is None else [{
        "name": f"{name}: loads and unloads in the same order in both worlds",
        "figure": 100.0 * loads.same / loads.total, "limit": None, "unit": "%", "passed": True, "detail": str(loads),
    }]  # fmt: skip
    return [
        *told,
        {
            "name": f"{name}: decisions identical when the measured durations are replayed",
            "figure": 100.0 * parity.same / max(1, parity.total), "limit": 100.0, "unit": "%",
            "passed": parity.identical, "detail": str(parity),
        },
        {
            "name": f"{name}: mean error over mean, p50, p95 of TTFT, TPOT, E2E", "figure": comparison.mean_error,
            "limit": None, "unit": "%", "passed": True, "detail": floors_text(comparison),
        },
    ]  # fmt: skip


def floors_text(comparison: Comparison) -> str:
    """What the error is to be held against."""
    floors = [f"{name} {value:.1f} %" for name, value in comparison.floors.items()]
    changes = {"level of the cost model": comparison.level_pct, "drift of the machine": comparison.drift_pct}
    told = [f"{name} {value:+.1f} %" for name, value in changes.items() if value is not None]
    return ", ".join([*floors, *told])


def text_of(comparison: Comparison) -> str:
    """What the terminal shows for one policy set."""
    measured, engine = comparison.measured.summary, comparison.measured.summary["engine"]
    lines = [
        f"== {comparison.name or 'simulated and measured'} ==",
        format_table(comparison.table),
        f"decisions: {comparison.parity} (measured durations replayed)",
        *([] if comparison.loads is None else [f"loads and unloads: {comparison.loads} (simulated and measured)"]),
        f"error: {comparison.mean_error:.1f} % mean over mean, p50, p95 of TTFT, TPOT, E2E",
        f"beside it: {floors_text(comparison)}",
        f"measured: {engine['passes']:,} passes in {engine['wall_s']:.0f} s{_calibrated(comparison.profile)}",
    ]
    lines += [f"{side}: {name} {text}" for side, name, text in shares_of(comparison)]
    warnings = [*measured["provenance"]["warnings"], *comparison.doubts]
    return "\n".join(lines + [f"warning: {text}" for text in warnings])


def shares_of(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Recall and hit rates of services, by world."""
    worlds = (("simulated", comparison.sim), ("measured", comparison.measured))
    return [(side, name, text) for side, run in worlds for name, text in service_lines(run.summary)]


def _calibrated(profile: Mapping[str, Any]) -> str:
    samples = profile.get("kinds", {}).get("generate", {}).get("samples")
    device = f" on {profile['device']}" if "device" in profile else ""
    return device if samples is None else f"{device}, predicted with a fit to {samples:,} batches"

"""What a calibration profile is worth: the passes of the run itself, against it and fitted instead of it, and how far
the machine drifted while the samples were taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from airi_sim.core.types import Plan
from airi_sim.hardware.fit import PASSES, SERVED, Samples, profile_from_samples
from airi_sim.hardware.fitted import FittedCost
from airi_sim.hardware.service import SERVICES

COLUMNS = ("sequences", "context", "longest", "shared", "prefill_tokens", "prefill_attention", "prefill_context")
"""Of a measured pass (`passes.parquet`), beside kind, seconds, slices and items: what its cost depends on."""
WARN_DRIFT = 0.1
"""From here on a drift is worth a warning (docs/validation.md says why)."""


class Items(NamedTuple):
    """Stands in for the jobs of a pass, of which only the number of items is known."""

    items: int


def refitted(profile: Mapping[str, Any], passes: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The same profile, fitted in sample on the measured `passes` themselves: no cost model with these features can be
    nearer. None where the profile is no fit of whole passes: parts have fits of their own (speculation), or it holds
    the physics of a device."""
    if not _whole(profile):
        return None
    head = {key: value for key, value in profile.items() if key not in ("format", "kinds")}
    found = profile_from_samples(samples_of(passes), **head)
    return found | {"kinds": {**profile["kinds"], **found["kinds"]}}


def level(profile: Mapping[str, Any], passes: Sequence[Mapping[str, Any]]) -> float | None:
    """What the measured passes of the model would take in all by the profile, relative to what they took, less 1. None
    where there are none, or the profile is no fit of whole passes."""
    samples = samples_of(passes).get(SERVED)
    if not samples or not _whole(profile):
        return None
    cost = FittedCost(profile)
    return sum(cost.affine(plan).first for plan, _ in samples) / sum(seconds for _, seconds in samples) - 1


def drift(profile: Mapping[str, Any]) -> float | None:
    """By how much the second half of the samples took longer than the first, both against the fit, if that is more than
    their noise makes likely (three standard errors); 0 if not, None for a profile that does not tell."""
    section = profile.get("kinds", {}).get(SERVED, {})
    if "drift_rel" not in section:
        return None
    change, noise = section["drift_rel"], section["residual_rel"]
    return change if abs(change) > 3 * noise * (4 / section["samples"]) ** 0.5 else 0.0


def samples_of(passes: Sequence[Mapping[str, Any]]) -> dict[str, Samples]:
    """Rows of `passes.parquet` as samples, by kind; what is no pass of a model or service is left out."""
    found: dict[str, list[tuple[Plan, float]]] = {}
    for row in passes:
        if row["kind"] == SERVED or row["kind"] in SERVICES:
            found.setdefault(row["kind"], []).append((_plan(row), row["seconds"]))
    return dict(found)


def _whole(profile: Mapping[str, Any]) -> bool:
    kinds = profile.get("kinds", {})
    return SERVED in kinds and not any(kind in kinds for kind in PASSES if kind != SERVED)


def _plan(row: Mapping[str, Any]) -> Plan:
    first, rest = [(Items(row["items"]), 0)], [(Items(0), 0)] * (row["slices"] - 1)
    return Plan(-1, 0.0, [*first, *rest] if row["slices"] else [], **{name: row[name] for name in COLUMNS})

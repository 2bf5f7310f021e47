"""What a profile is worth against the passes it predicts, and a machine that drifted while it was measured."""

from __future__ import annotations

import random
from typing import Any

import pytest

from airi_sim.core.types import Plan
from airi_sim.hardware.again import COLUMNS, drift, level, refitted, samples_of
from airi_sim.hardware.fit import profile_from_samples
from airi_sim.hardware.fitted import FittedCost
from airi_sim.hardware.service import SERVICES
from airi_sim.workbench.compared import Comparison
from tests.hardware.test_fitted import PROFILE, TRUE, dot, noisy, random_plan

HEAD: dict[str, Any] = {
    "device": "box",
    "model": "tiny",
    "precision": "fp32",
    "attention": {"name": "sdpa", "features": "padded"},
}


def row(plan: Plan, seconds: float, kind: str = "generate", items: int = 0) -> dict[str, Any]:
    """A row of passes.parquet."""
    units = {name: getattr(plan, name) for name in COLUMNS}
    return {"kind": kind, "seconds": seconds, "slices": len(plan.slices), "items": items} | units


def test_a_row_costs_what_its_plan_costs() -> None:
    rng, cost = random.Random(0), FittedCost(PROFILE)
    for plan in (random_plan(rng) for _ in range(50)):
        [(again, seconds)] = samples_of([row(plan, 2.0)])["generate"]
        assert (cost.affine(again), seconds) == (cost.affine(plan), 2.0)


@pytest.mark.parametrize("kind", SERVICES)
def test_services_are_fitted_to_their_passes_too(kind: str) -> None:
    rows = []
    for tokens in (1, 10, 100):
        for jobs, items in ((1, 5), (2, 2), (8, 40)):
            plan = Plan(0, 0.0, [(None, 0)] * jobs, [], prefill_tokens=tokens)
            seconds = 1e-3 + 1e-5 * tokens + 1e-4 * (items if SERVICES[kind].many else jobs)
            rows.append(row(plan, seconds, kind, items))
    profile = profile_from_samples({"generate": noisy(50, 0.1)}, **HEAD)
    found = refitted(profile, rows)
    assert found is not None
    section = found["kinds"][kind]
    assert (section["constant"], section["per_token"], section["per_item"]) == pytest.approx((1e-3, 1e-5, 1e-4))
    assert found["kinds"]["generate"] == profile["kinds"]["generate"], "what was not measured stays as it was"


def test_a_profile_that_is_low_has_a_level_and_the_refitted_one_has_none() -> None:
    passes = [row(plan, 1.25 * dot(plan, TRUE)) for plan in (random_plan(random.Random(i)) for i in range(300))]
    profile = profile_from_samples({"generate": noisy(300, 0.05)}, **HEAD)
    assert level(profile, passes) == pytest.approx(1 / 1.25 - 1, abs=0.02)
    again = refitted(profile, passes)
    assert again is not None and level(again, passes) == pytest.approx(0.0, abs=1e-3)
    assert {name: again[name] for name in HEAD} == HEAD
    assert level(profile, []) is None


def test_what_is_no_fit_of_whole_passes_is_left_alone() -> None:
    physics = {"format": "airi-physics/1"}
    assert (refitted(physics, []), level(physics, []), drift(physics)) == (None, None, None)
    profile = profile_from_samples({kind: noisy(50, 0.1) for kind in ("generate", "draft")}, **HEAD)
    assert refitted(profile, [row(random_plan(random.Random(0)), 1.0)]) is None
    assert level(profile, [row(random_plan(random.Random(0)), 1.0)]) is None


@pytest.mark.parametrize("change", [-0.2, 0.0, 0.3])
def test_a_drift_is_told_from_noise(change: float) -> None:
    samples = noisy(1000, 0.3)
    drifted = [(plan, s * (1 + change * (i >= 500))) for i, (plan, s) in enumerate(samples)]
    found = drift(profile_from_samples({"generate": drifted}, **HEAD))
    assert found == pytest.approx(change, abs=0.08 if change else 0.0)
    assert drift(PROFILE) is None


def test_a_comparison_warns_of_a_drift() -> None:
    told = {}
    for change in (0.0, 0.05, -0.2):
        samples = [(plan, s * (1 + change * (i >= 200))) for i, (plan, s) in enumerate(noisy(400, 0.01))]
        told[change] = doubts_of(profile_from_samples({"generate": samples}, **HEAD))
    assert told[0.0] == told[0.05] == []
    assert len(told[-0.2]) == 1 and "% less time in the second half of the measured run" in told[-0.2][0]


def doubts_of(profile: dict[str, Any]) -> list[str]:
    class Predicted(Comparison):
        @property
        def profile(self) -> dict[str, Any]:
            return profile

    nothing: Any = None
    return Predicted("", nothing, nothing, None, None, nothing, nothing).doubts

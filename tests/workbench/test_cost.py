"""What a run costs: the figures of the accelerators, times what was held and how long it was busy."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airi_sim.hardware.accelerator import Accelerator
from airi_sim.hardware.deployment import Deployment
from airi_sim.workbench.prices import price_of
from tests.workbench.conftest import Run

FLAT = ("accelerator.usd_per_hour=3600", "accelerator.tdp_w=100", "accelerator.idle_w=10", "workload.n=20")


def summary(airi: Run, *words: str) -> dict[str, Any]:
    done = airi(*words)
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads((done.folder / "summary.json").read_text())
    return found


def test_the_bill_of_two_replicas_of_two_accelerators(airi: Run) -> None:
    found = summary(airi, *FLAT, "pool.replicas=2", "pool.tp=2", "cost.pue=1.5", "cost.gco2_per_kwh=360")
    held = 2 * 2 * found["duration_s"]
    busy = 2 * sum(one["busy_s"] for one in found["utilization"]["servers"].values())
    joules = 1.5 * (10 * held + 90 * busy)
    assert busy > 0
    assert found["cost"] == pytest.approx({"usd": held, "joules": joules, "gco2": joules / 3.6e6 * 360})


def test_unlike_pools_are_billed_by_their_own_accelerators(airi: Run) -> None:
    pools = "pools={a: {accelerator: l4, replicas: 2}, b: {accelerator: h100-sxm, model: tiny}}"
    found = summary(airi, pools, "workload.n=20")
    assert found["cost"]["usd"] == pytest.approx((2 * 0.7 + 3.0) * found["duration_s"] / 3600)
    assert found["cost"]["gco2"] is None, "no carbon intensity, no carbon"


def test_figures_that_nobody_knows_are_no_prices() -> None:
    device = Accelerator("d", {"bf16": 1e12}, 1e9, 1e9, tdp_w=50.0)
    assert price_of(Deployment("p", "generate", None, device, tp=4)) == {"busy_watts": 200.0}


def test_without_figures_there_is_no_bill(airi: Run) -> None:
    words = [f"accelerator.{name}=0" for name in ("usd_per_hour", "tdp_w", "idle_w")]
    assert summary(airi, "workload.n=5", *words)["cost"] == {"usd": None, "joules": None, "gco2": None}


@pytest.mark.parametrize(("word", "wanted"), [("cost.pue=0.9", "from 1"), ("cost.gco2_per_kwh=-1", "or null")])
def test_impossible_figures_are_refused(airi: Run, word: str, wanted: str) -> None:
    assert wanted in airi(word).sentence

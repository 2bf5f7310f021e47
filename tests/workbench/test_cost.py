"""What a run costs: the figures of the accelerators, times what was held and how long it was busy."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airi_sim.hardware.accelerator import Accelerator
from airi_sim.hardware.deployment import Deployment
from airi_sim.hardware.power import FITTED
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
    bill, held = found["cost"], 2 * 2 * found["duration_s"]
    busy = 2 * sum(one["busy_s"] for one in found["utilization"]["servers"].values())
    assert bill["usd"] == pytest.approx(held)
    assert bill["idle_joules"] == pytest.approx(1.5 * 10 * held)
    assert bill["gco2"] == pytest.approx(bill["joules"] / 3.6e6 * 360)
    assert FITTED.base * busy < (bill["joules"] - bill["idle_joules"]) / (1.5 * 90) < busy
    tokens = found["throughput"]["output_tokens_per_s"] * found["duration_s"] / 1e6
    assert bill["usd_per_mtok"] == pytest.approx(bill["usd"] / tokens)
    assert bill["joules_per_mtok"] == pytest.approx(bill["joules"] / tokens)


def test_carbon_follows_the_grid(airi: Run) -> None:
    """Twice the carbon from the middle on is about half as much again; from the end on, it is the same."""
    flat = summary(airi, *FLAT, "cost.gco2_per_kwh=100")
    half, end = flat["duration_s"] / 2, flat["duration_s"]
    found = [summary(airi, *FLAT, f"cost.gco2_per_kwh=[[0, 100], [{at}, 200]]")["cost"]["gco2"] for at in (half, end)]
    assert found[0] / flat["cost"]["gco2"] == pytest.approx(1.5, abs=0.2)
    assert found[1] == pytest.approx(flat["cost"]["gco2"])


def test_passes_at_once_draw_what_single_passes_draw(airi: Run) -> None:
    bills = [summary(airi, "workload.n=40", f"engine.fast_forward={fast}")["cost"] for fast in ("true", "false")]
    assert bills[0] == {name: value and pytest.approx(value, rel=1e-9) for name, value in bills[1].items()}


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
    assert set(summary(airi, "workload.n=5", *words)["cost"].values()) == {None}


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("cost.pue=0.9", "from 1"),
        ("cost.gco2_per_kwh=-1", "or null"),
        ("cost.gco2_per_kwh=[[5, 100]]", "from 0 s on"),
        ("cost.gco2_per_kwh=[[0, 100], [0, 200]]", "from 0 s on"),
        ("cost.gco2_per_kwh=[1, 2]", "from 0 s on"),
    ],
)
def test_impossible_figures_are_refused(airi: Run, word: str, wanted: str) -> None:
    assert wanted in airi(word).sentence

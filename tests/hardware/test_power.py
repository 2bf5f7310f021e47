"""Watts: what a pass draws follows its work, and agrees with what A100s drew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from airi_sim.hardware.power import FITTED, Power, work
from experiments.power import LONGEST, fit, measured, predicted
from tests.hardware.parts import deployment, load


def test_power_lies_between_awake_and_full() -> None:
    assert FITTED.share(0.0, 0.0) == FITTED.base
    assert FITTED.share(1.0, 1.0) == 1.0
    assert Power(0.1, 0.5, 1.0).share(0.4, 0.2) == pytest.approx(0.1 + 0.2 + 0.2)


def test_the_work_of_a_decode_pass_is_its_bytes_and_operations() -> None:
    """Llama 3.1 8B on an H100: 16.06 GB of weights, 131,072 bytes a token of context, 15.0 GFLOP a new token."""
    found = work(deployment())
    assert found["pass_s"] == pytest.approx(0.82 * 16.06e9 / 3.35e12, rel=1e-3)
    pairs = 4 * 32 * 128 * 32
    assert found["context_s"] == pytest.approx(0.82 * 131072 / 3.35e12 + 1.6 * pairs / 9.89e14, rel=1e-6)
    assert found["decode_s"] == pytest.approx(1.6 * 2 * 7.5e9 / 9.89e14, rel=0.01)
    assert found["prompt_s"] == pytest.approx(found["decode_s"] - 1.6 * 2 * 128256 * 4096 / 9.89e14)


def test_two_accelerators_share_the_work() -> None:
    one, two = work(deployment(tp=1)), work(deployment(tp=2))
    assert two["pass_s"] == pytest.approx(one["pass_s"] / 2)
    assert two["base"] == one["base"]


def test_a_token_wakes_only_its_own_experts() -> None:
    sparse = work(deployment("mixtral-8x7b"))
    assert sparse["unused"] == pytest.approx(1 - 2 / 8)
    assert sparse["experts_s"] > 10 * sparse["pass_s"]
    assert work(deployment())["experts_s"] == 0.0


def test_a_service_draws_full_power_while_it_is_busy() -> None:
    assert work(replace(deployment(), kind="search", model=None)) == {"base": 1.0}


def test_mean_power_of_a100s_is_met_within_a_few_percent(data_dir: Path) -> None:
    """Also where the size of node was left out of the fit. Figures: python -m experiments.power."""
    points = measured(data_dir)
    points = points[points.prompt_size <= LONGEST]
    device = load("accelerator", "a100-sxm-80")
    idle = device.idle_w / device.tdp_w

    def off(power: Power, some: object) -> float:
        return float((predicted(power, some, idle)[0] / some.avg_power_frac_tdp - 1).abs().mean())  # type: ignore

    assert off(FITTED, points) < 0.05
    for ranks in (2, 4, 8):
        one = points.tensor_parallel == ranks
        assert off(fit(points[~one], idle), points[one]) < 0.10

"""Closed forms of parallelism against examples solved by hand."""

from __future__ import annotations

import pytest

from airi_sim.core.errors import BadInput
from airi_sim.hardware import collectives as c
from tests.hardware.parts import load

MB = 1e6


def test_ring_all_reduce_of_the_worked_example() -> None:
    assert c.ring_all_reduce(8, 64 * MB, 450e9, 5e-6) == pytest.approx(318.9e-6, abs=0.05e-6)


def test_a_pipeline_of_four_stages_and_eight_microbatches_stands_still_for_three_elevenths() -> None:
    assert c.pipeline_bubble(4, 8) == pytest.approx(3 / 11)
    assert c.pipeline_bubble(1, 8) == 0.0


@pytest.mark.parametrize(
    ("name", "ridge", "weights_ms"),
    [("a100-sxm-80", 153, 7.88), ("h100-sxm", 295, 4.79), ("h200-sxm", 206, 3.35), ("l4", 403, 53.5)],
)
def test_the_rooflines_of_four_accelerators(name: str, ridge: float, weights_ms: float) -> None:
    device = load("accelerator", name)
    assert c.ridge(device.peak("bf16"), device.bandwidth) == pytest.approx(ridge, abs=0.6)
    assert c.roofline(0.0, 16.06e9, device.peak("bf16"), device.bandwidth) * 1e3 == pytest.approx(weights_ms, rel=2e-3)


def test_a_kernel_is_as_slow_as_the_slower_of_its_two_halves() -> None:
    at = c.ridge(100.0, 10.0)
    assert c.roofline(at * 7, 7, 100.0, 10.0) == pytest.approx(7 / 10.0)
    assert c.roofline(at * 14, 7, 100.0, 10.0) == pytest.approx(2 * 7 / 10.0)


@pytest.mark.parametrize("ranks", [1, 2, 4, 8, 72])
def test_an_all_reduce_is_a_reduce_scatter_and_an_all_gather(ranks: int) -> None:
    parts = c.ring_reduce_scatter(ranks, 5 * MB, 1e9, 1e-6) + c.ring_all_gather(ranks, 5 * MB, 1e9, 1e-6)
    assert c.ring_all_reduce(ranks, 5 * MB, 1e9, 1e-6) == parts


def test_nobody_talks_to_himself() -> None:
    for collective in (c.ring_all_reduce, c.tree_all_reduce, c.all_reduce, c.all_to_all, c.ring_all_gather):
        assert collective(1, 5 * MB, 1e9, 1e-6) == 0.0


def test_small_vectors_go_by_tree_and_large_ones_by_ring() -> None:
    assert (
        c.all_reduce(64, 1e3, 1e9, 1e-5)
        == c.tree_all_reduce(64, 1e3, 1e9, 1e-5)
        < c.ring_all_reduce(64, 1e3, 1e9, 1e-5)
    )
    assert (
        c.all_reduce(64, 1e9, 1e9, 1e-5)
        == c.ring_all_reduce(64, 1e9, 1e9, 1e-5)
        < c.tree_all_reduce(64, 1e9, 1e9, 1e-5)
    )


def test_an_all_to_all_keeps_one_share_at_home() -> None:
    assert c.all_to_all(4, 8.0, 2.0, 0.5) == pytest.approx(0.5 + 3 * 2 / 2.0)
    assert c.point_to_point(8.0, 2.0, 0.5) == pytest.approx(4.5)


@pytest.mark.parametrize("call", [lambda: c.ring_all_reduce(0, 1.0, 1.0), lambda: c.pipeline_bubble(2, 0)])
def test_what_cannot_be_is_refused(call) -> None:
    with pytest.raises(BadInput, match="at least 1"):
        call()

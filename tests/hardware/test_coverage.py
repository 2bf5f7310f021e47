"""What lies outside the measurements is counted and named; intervals follow the residuals."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airi_sim.hardware.choose import cost_model
from airi_sim.hardware.confidence import NINETY, interval, representative, spread
from airi_sim.hardware.coverage import Passes, coverage
from tests.hardware.parts import deployment

RANGES = {
    "gemm": {"m": (1, 4096), "n": (64, 65536), "k": (64, 65536)},
    "decode": {"sequences": (1, 256), "context": (1, 8192)},
    "prefill": {"tokens": (16, 4096)},
}


def on(ranges=RANGES, residuals=None, **more):
    own = deployment(**more)
    return replace(own, accelerator=replace(own.accelerator, ranges=ranges, residuals=residuals or {}))


def rows(*given):
    """(passes, decodes, context, prompt) of each."""
    passes, decodes, context, prompt = np.array(given, dtype=np.int64).T
    return Passes(passes, decodes, context, prompt, passes * 0.01)


def test_a_pass_is_known_when_each_of_its_kernels_is():
    found = coverage(on(), rows((10, 32, 32_000, 0), (1, 0, 0, 512)))
    assert (found.calibrated, found.interpolated, found.extrapolated, found.lacked) == (11, 0, 0, [])
    assert found.sentences() == []


def test_prompts_beside_decodes_are_interpolated_until_somebody_times_both():
    mixed = rows((3, 32, 32_000, 512))
    assert coverage(on(), mixed).interpolated == 3
    assert coverage(on(RANGES | {"mixed": {"tokens": (16, 4096)}}), mixed).calibrated == 3


def test_a_size_beyond_the_timings_is_named_with_what_was_timed():
    found = coverage(on(), rows((7, 300, 30_000, 0), (5, 10, 1000, 0)))
    assert (found.calibrated, found.extrapolated) == (5, 7)
    assert found.lacked == [
        {"kernel": "decode", "number": "sequences", "reached": 300.0, "timed": [1, 256], "passes": 7}
    ]
    assert "7 of 12 passes" in found.sentences()[0] and "sequences 300, timed 1 to 256" in found.sentences()[0]


def test_a_context_that_grows_out_of_the_timings_within_equal_passes():
    found = coverage(on(), rows((2000, 1, 7000, 0)))
    assert [one["number"] for one in found.lacked] == ["context"]


def test_a_kernel_without_timings_is_said_once():
    found = coverage(on({}), rows((1, 4, 400, 0), (1, 0, 0, 64)))
    assert found.extrapolated == 2
    assert sorted(one["kernel"] for one in found.lacked) == ["decode", "gemm", "prefill"]
    assert all(one["timed"] is None for one in found.lacked)


def test_a_wider_weight_is_more_of_the_same_a_narrower_one_is_not():
    few = rows((1, 4, 400, 0))
    assert coverage(on(RANGES | {"gemm": {"m": (1, 64), "n": (64, 4096), "k": (64, 4096)}}), few).known
    narrow = coverage(on(RANGES | {"gemm": {"m": (1, 64), "n": (8192, 65536), "k": (64, 65536)}}), few)
    assert [one["number"] for one in narrow.lacked] == ["n"]


def test_experts_need_timings_of_experts():
    found = coverage(on(model="mixtral-8x7b", tp=2), rows((1, 4, 400, 0)))
    assert [one["kernel"] for one in found.lacked] == ["moe"]


def test_a_measured_profile_has_ranges_of_whole_passes():
    own = on()
    ranges = {"tokens": [1, 256], "sequences": [0, 32], "context": [0, 9000]}
    profile = {"kinds": {"generate": {"ranges": ranges}}}
    own = replace(own, accelerator=replace(own.accelerator, profile=profile))
    found = coverage(own, rows((3, 30, 8000, 0), (2, 31, 300, 250)))
    assert (found.calibrated, found.extrapolated) == (3, 2)
    assert [(one["number"], one["reached"]) for one in found.lacked] == [("tokens", 281.0)]


@given(
    data=st.lists(
        st.tuples(st.integers(1, 50), st.integers(0, 600), st.integers(0, 20_000), st.integers(0, 9000)), min_size=1,
        max_size=20,
    )
)  # fmt: skip
def test_every_pass_is_in_one_class(data):
    passes = rows(*[row for row in data if row[1] or row[3]] or [(1, 1, 1, 0)])
    found = coverage(on(), passes)
    assert found.calibrated + found.interpolated + found.extrapolated == passes.passes.sum()


LONG = rows(*[(5, n, 600 * n, 256 * (n % 3 == 0)) for n in range(1, 200)])


def test_without_residuals_nothing_is_doubted_but_the_engine():
    sure = dict.fromkeys(("gemm", "decode", "prefill", "mixed", "moe", "small"), 0.0)
    own = on(residuals=sure)
    host = replace(own, serving=None)
    assert spread(host, LONG) == pytest.approx(0.0)
    assert 0 < spread(own, LONG) < 0.1


@pytest.mark.parametrize("sigma", [0.01, 0.1, 0.4])
def test_the_spread_grows_with_the_residuals_and_stays_below_their_largest(sigma):
    sure = dict.fromkeys(("decode", "prefill", "mixed", "moe", "small"), 0.0)
    own = replace(on(residuals=sure | {"gemm": sigma}), serving=None)
    more = replace(on(residuals=sure | {"gemm": 2 * sigma}), serving=None)
    assert 0 < spread(own, LONG) < spread(more, LONG)
    assert spread(own, LONG) <= sigma * 1.001


def test_a_few_rows_stand_for_all():
    cost = cost_model(on())
    few = representative(LONG, 24)
    assert len(few) <= 24 < len(LONG)
    assert cost is not None and spread(on(), few) == pytest.approx(spread(on(), LONG), rel=0.1)


def test_an_interval_holds_its_figure_and_waiting_widens_it():
    summary = {
        "ttft_s": {"mean": 1.0, "p50": 0.8, "p99": None}, "tpot_s": {"mean": 0.01}, "itl_s": {}, "e2e_s": {"mean": 3.0},
        "queue_s": {"mean": 0.5},
    }  # fmt: skip
    idle, busy, over = (interval(summary, 0.1, *state) for state in ((0.0, 0.01), (0.8, 0.01), (1.0, 0.5)))
    assert idle["tpot_s"]["mean"] == busy["tpot_s"]["mean"] == pytest.approx([0.01 / 1.1645, 0.01 * (1 + NINETY * 0.1)])
    assert busy["ttft_s"]["mean"][0] < idle["ttft_s"]["mean"][0] < 1.0 < idle["ttft_s"]["mean"][1]
    assert idle["ttft_s"]["p99"] is None
    assert over["ttft_s"]["mean"][1] == pytest.approx(1 + NINETY * 0.1 * (0.5 + 0.5 * 3), rel=1e-9)

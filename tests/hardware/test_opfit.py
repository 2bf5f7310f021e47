"""Fits of op timings: the formulas are those of the cost model, coefficients come back, bad rows do no harm."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airi_sim.core.errors import BadInput
from airi_sim.hardware import opfit
from airi_sim.hardware.accelerator import calibrated
from airi_sim.hardware.importers.ops import ops
from airi_sim.hardware.kernels import Kernels
from airi_sim.hardware.physics import arguments, physics_profile
from tests.hardware.parts import deployment, load

H100 = load("accelerator", "h100-sxm")
SHEET = opfit.Sheet.of(H100, "bf16")
KNOWN = opfit.coefficients_of(H100)
HEADS = {"heads": 32, "kv_heads": 8, "head_dim": 128}
"""Those of llama-3.1-8b."""


def kernels(**more) -> Kernels:
    own = deployment(**more)
    return Kernels(own.model, own.accelerator, own.serving, own.precision, own.tp)


@given(m=st.integers(1, 10_000), n=st.integers(64, 60_000), k=st.integers(64, 60_000))
def test_a_product_costs_what_the_cost_model_says(m, n, k):
    timing = ops("gemm", {"m": [m], "n": [n], "k": [k]}, [1.0], "")
    assert opfit.gemm(timing, KNOWN, SHEET)[0] == pytest.approx(kernels().product(m, n, k), rel=1e-9)


@given(sequences=st.integers(1, 500), context=st.integers(1, 20_000))
def test_decode_attention_costs_what_the_cost_model_says(sequences, context):
    own = kernels()
    timing = ops("decode", {"sequences": [sequences], "context": [context], **HEADS}, [1.0], "")
    whole = own.decode_launch() + sequences * own.decode_sequence() + sequences * context * own.reaches()[0].decode
    assert 32 * opfit.decode(timing, KNOWN, SHEET)[0] == pytest.approx(whole, rel=1e-9)


@given(tokens=st.integers(1, 4000), past=st.integers(0, 20_000))
def test_prefill_attention_costs_what_the_cost_model_says(tokens, past):
    own = kernels()
    timing = ops("prefill", {"sequences": [1], "tokens": [tokens], "past": [past], **HEADS}, [1.0], "")
    pairs = tokens * (tokens + 1) / 2 + tokens * past
    whole = own.prefill_launch() + pairs * own.reaches()[0].pair + (tokens + past) * own.prefill_context()
    assert 32 * opfit.prefill(timing, KNOWN, SHEET)[0] == pytest.approx(whole, rel=1e-9)


def timings(kind: str, count: int, truth, noise: float, seed: int = 0):
    """Timings of random shapes by known coefficients, with noise."""
    rng = np.random.default_rng(seed)

    def draw(low: float, high: float):
        return np.exp(rng.uniform(np.log(low), np.log(high), count)).astype(int).astype(float)

    heads = {name: np.full(count, float(value)) for name, value in HEADS.items()}
    shapes = {
        "gemm": lambda: {"m": draw(1, 8192), "n": draw(1024, 30_000), "k": draw(1024, 16_000)},
        "decode": lambda: {"sequences": draw(1, 256), "context": draw(64, 16_000), **heads},
        "prefill": lambda: {"sequences": np.ones(count), "tokens": draw(256, 8192), "past": draw(1, 8192), **heads},
        "mixed": lambda: {"tokens": draw(16, 2048), "past": draw(1, 4000), "sequences": draw(32, 128),
                          "context": draw(700, 8000), **heads},
        "moe": lambda: {"tokens": draw(1, 8000), "hidden": 4096, "ffn": draw(256, 14_000), "experts": 64, "active": 4},
        "small": lambda: {"tokens": draw(1, 8000), "hidden": 4096, "ffn": 14336},
    }  # fmt: skip
    blank = ops(kind, shapes[kind](), np.ones(count), "made up")
    return replace(
        blank, seconds=opfit.FAMILIES[kind].formula(blank, truth, SHEET) * np.exp(rng.normal(0, noise, count))
    )


TRUTH = KNOWN | {
    "e_c": 0.7, "e_m": 0.8, "gemm_s": 4e-6, "gemm_k_s": 3e-6, "blend": 2.0, "e_kv": 0.8, "decode_s": 9e-6,
    "wave_s": 2e-6, "e_pa": 0.5, "prefill_s": 2e-5, "mixed": 1.7, "e_moe": 0.45, "moe_s": 3e-5, "e_w": 0.6,
    "layer_s": 8e-6,
}  # fmt: skip


def test_coefficients_come_back_through_noise_and_outliers():
    found = [timings(kind, 600, TRUTH, 0.05, seed) for seed, kind in enumerate(opfit.FAMILIES)]
    for one in found:
        one.seconds[::25] *= 3.0
    for fit in opfit.fit_ops(found, H100, "bf16"):
        big = [name for name in fit.values if name not in ("gemm_s", "gemm_k_s", "blend", "wave_s", "layer_s")]
        for name in big:
            assert fit.values[name] == pytest.approx(TRUTH[name], rel=0.06), (fit.kind, name)
        assert fit.sigma == pytest.approx(0.05, rel=0.35), fit.kind
        assert abs(fit.bias) < 0.02


def test_what_beats_the_data_sheet_is_dropped_and_said():
    good = timings("prefill", 400, TRUTH, 0.02)
    broken = replace(good, seconds=good.seconds.copy())
    broken.seconds[:100] /= 50
    (fit,) = opfit.fit_ops([broken], H100, "bf16")
    assert fit.dropped >= 80
    assert fit.values["e_pa"] == pytest.approx(TRUTH["e_pa"], rel=0.1)


def test_a_shape_counts_once_with_its_median():
    many = ops("gemm", {"m": [8, 8, 8, 16], "n": 4096, "k": 4096}, [1e-5, 2e-5, 9e-5, 3e-5], "made up")
    once = opfit.distinct(many)
    assert once.seconds.tolist() == pytest.approx([2e-5, 3e-5])
    assert once["m"].tolist() == [8, 16]


def test_an_all_reduce_has_a_start_and_a_rate():
    sizes = np.logspace(3, 9, 40)
    found = opfit.fit_all_reduce(ops("all_reduce", {"ranks": 4, "bytes": sizes}, 5e-6 + sizes * 1.5 / 3e11, "made up"))
    assert found == {4: (pytest.approx(5e-6), pytest.approx(3e11))}


def test_few_timings_are_no_fit():
    with pytest.raises(BadInput, match="at least 8"):
        opfit.fit_ops([timings("gemm", 5, TRUTH, 0.0)], H100, "bf16")


def test_a_profile_is_an_accelerator_again(tmp_path):
    import json

    found = [timings("gemm", 200, TRUTH, 0.02), timings("decode", 200, TRUTH, 0.02)]
    profile = physics_profile(found, H100, "bf16")
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(profile))
    device = calibrated(str(path))
    assert device.confidence == "measured" and device.name == "h100-sxm"
    assert device.e_c == pytest.approx(0.7, rel=0.05)
    assert device.e_pa == H100.e_pa, "no timing says anything of it"
    assert device.ranges["gemm"]["m"][1] <= 8192 and device.residuals["decode"] == pytest.approx(0.02, rel=0.3)
    assert (
        "prefill" in profile["taken"]["families"] and device.ranges["prefill"] == profile["taken"]["ranges"]["prefill"]
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"coefficients": {"e_c": -1.0}}, "e_c is not above 0"),
        ({"families": {"gemm": {"samples": 3}}}, "family gemm lacks"),
        ({"tables": 3}, "tables is not an object"),
    ],
)
def test_a_broken_profile_is_refused_in_one_sentence(tmp_path, change, words):
    import json

    profile = physics_profile([timings("gemm", 50, TRUTH, 0.0)], H100, "bf16") | change
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(profile))
    with pytest.raises(BadInput, match=words):
        calibrated(str(path))


def test_arguments_name_their_sources():
    given = arguments(physics_profile([timings("gemm", 50, TRUTH, 0.0)], H100, "bf16"))
    assert "50 timings: made up" in given["sources"]["gemm"]


def test_what_no_timing_said_keeps_its_source_its_ranges_and_its_spread():
    device = replace(H100, confidence="medium", residuals={"gemm": 0.5, "decode": 0.125})
    given = arguments(physics_profile([timings("gemm", 50, TRUTH, 0.0)], device, "bf16"))
    for kind in ("decode", "prefill"):
        assert given["ranges"][kind] == {name: list(ends) for name, ends in H100.ranges[kind].items()}
        assert given["sources"][kind] == H100.sources[kind]
    assert [given["residuals"][kind] for kind in ("decode", "prefill", "moe")] == [0.125, 0.15, 0.25]
    assert given["residuals"]["gemm"] < 0.01
    assert "made up" in given["sources"]["gemm"] and not {"e_c", "e_m"} & set(given["sources"])

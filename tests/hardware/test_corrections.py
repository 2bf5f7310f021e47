"""Physics times a table: right where the table is, the formula alone where it is not."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airi_sim.hardware.choose import cost_model
from airi_sim.hardware.corrections import correction
from airi_sim.hardware.importers import read_ops
from airi_sim.hardware.opfit import distinct, fit_ops, predicted, with_fit
from tests.hardware.parts import deployment, load, make_plan

SHAPES = [(m, n, 4096) for m in (1, 16, 256, 4096) for n in (1024, 4096, 16384)]
SIDE = st.integers(1, 100_000)


def table(errors):
    m, n, k = zip(*SHAPES, strict=True)
    return {"gemm": {"m": m, "n": n, "k": k, "log_ratio": errors}}


def test_no_table_no_correction():
    assert correction({}) is None


def test_a_shape_of_the_table_gets_its_own_error():
    factor = correction(table([0.01 * i for i in range(len(SHAPES))]))
    for i, shape in enumerate(SHAPES):
        assert factor(*shape) == pytest.approx(2.718281828 ** (0.01 * i), rel=1e-3)


@given(m=SIDE, n=SIDE, k=SIDE)
def test_a_correction_never_leaves_the_errors_of_the_table(m, n, k):
    assert 1.0 <= correction(table([0.2] * len(SHAPES)))(m, n, k) <= 2.718281828**0.2 + 1e-9


def test_far_from_the_table_the_formula_stands_alone():
    factor = correction(table([0.5] * len(SHAPES)))
    assert factor(1, 1024, 64) == 1.0
    assert 1.0 < factor(1, 1024, 4096 * 1.7) < factor(1, 1024, 4096 * 1.1)


def test_held_out_products_are_closer_with_the_table(data_dir):
    folder = data_dir / "fidelity" / "ops" / "layerwise_RTXPRO6000_llama-3.1-8b_tp1"
    if not folder.is_dir():
        pytest.skip("the op tables are not there")
    found = read_ops([folder], "rtx-pro-6000", "bf16", load("model", "llama-3.1-8b"))
    own = with_fit(load("accelerator", "rtx-pro-6000"), fit_ops(found, load("accelerator", "rtx-pro-6000"), "bf16"))
    ops = distinct(next(one for one in found if one.kind == "gemm"))
    formula = predicted(ops, own, "bf16")
    held = np.random.default_rng(0).random(len(ops)) < 0.3
    kept = {name: ops[name][~held] for name in ("m", "n", "k")}
    factor = correction({"gemm": kept | {"log_ratio": np.log(ops.seconds / formula)[~held]}})
    corrected = formula * np.array([factor(*shape) for shape in zip(ops["m"], ops["n"], ops["k"], strict=True)])
    alone, beside = (np.median(np.abs(said / ops.seconds - 1)[held]) for said in (formula, corrected))
    assert beside < 0.02 < alone < 0.10


def test_the_cost_model_applies_it():
    own = deployment()
    weights = [(6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (128256, 4096)]
    n, k = zip(*weights, strict=True)
    twice = {"gemm": {"m": [16] * len(n), "n": n, "k": k, "log_ratio": [0.6931471806] * len(n)}}
    slow = replace(own, accelerator=replace(own.accelerator, tables=twice))
    plan = make_plan([100] * 16)
    assert 1.6 < cost_model(slow).affine(plan).first / cost_model(own).affine(plan).first < 2.0

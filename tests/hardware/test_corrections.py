"""Physics times a table: right where the table is, the formula alone where it is not."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airi_sim.hardware.choose import cost_model
from airi_sim.hardware.corrections import correction
from tests.hardware.parts import deployment, make_plan

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


def test_the_cost_model_applies_it():
    own = deployment()
    weights = [(6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (128256, 4096)]
    n, k = zip(*weights, strict=True)
    twice = {"gemm": {"m": [16] * len(n), "n": n, "k": k, "log_ratio": [0.6931471806] * len(n)}}
    slow = replace(own, accelerator=replace(own.accelerator, tables=twice))
    plan = make_plan([100] * 16)
    assert 1.6 < cost_model(slow).affine(plan).first / cost_model(own).affine(plan).first < 2.0

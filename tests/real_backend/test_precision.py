"""Half precision: how far logits may be from those of the same weights in 32 bits, and what a slow CPU is told."""

from __future__ import annotations

from array import array
from itertools import pairwise

import pytest
import torch

from real_backend import precision, weights
from real_backend.batch import Segment
from tests.real_backend.families import PROMPTS, SPECS
from tests.real_backend.reference import logits as dense
from tests.real_backend.ways import Desk, forward

pytestmark = pytest.mark.real
TEXT = PROMPTS[3] + PROMPTS[4][:10]
CUTS = [0, 20, 33, *range(34, len(TEXT) + 1)]  # chunks, then one token at a time
ROUNDINGS = 4
FLIPPED = 0.1
UNIT = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


def errors(family: str, dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Root mean square error of the logits of each token, relative to the logits of the dense reference in fp32."""
    spec = SPECS[family]
    stored = {name: tensor.to(dtype) for name, tensor in weights.draw(spec, seed).items()}
    desk, table = Desk(spec, stored, dtype), list(range(1, 20))
    segments = [Segment(start, array("q", TEXT[start:stop]), table, True) for start, stop in pairwise(CUTS)]
    found = torch.cat([forward(desk.model, desk.cache, [segment])[0].float() for segment in segments])
    exact = dense(spec, {name: tensor.float() for name, tensor in stored.items()}, TEXT)
    return ((found - exact).pow(2).mean(-1) / exact.pow(2).mean(-1)).sqrt()


@pytest.mark.parametrize("dtype", UNIT, ids=str)
@pytest.mark.parametrize("family", SPECS)
def test_logits_in_half_precision_are_within_four_roundings(family: str, dtype: torch.dtype) -> None:
    """About thirty roundings in two layers, each off by up to the unit u and by u / sqrt(3) in the mean, add up in
    quadrature to 3 u; measured are 1.1 u to 3.0 u. Where two experts tie, rounding may pick the other one, and the
    token is then off by as much as an expert counts: few tokens may be."""
    found = errors(family, dtype, seed=0) / UNIT[dtype]
    allowed = FLIPPED if SPECS[family].experts else 0.0
    assert (found > ROUNDINGS).float().mean() <= allowed
    assert found.median() < ROUNDINGS / 1.5


def test_a_slow_precision_is_said_to_be_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {torch.float32: 2.0, torch.bfloat16: 1.1, torch.float16: 11.0}
    monkeypatch.setattr(precision, "product_seconds", seconds.__getitem__)
    cpu = torch.device("cpu")
    assert precision.doubts(cpu, torch.float32) == precision.doubts(cpu, torch.bfloat16) == ()
    (sentence,) = precision.doubts(cpu, torch.float16)
    assert "5.5 times as long for a product in float16" in sentence
    assert "backend.precision=fp32" in sentence


def test_products_are_timed() -> None:
    assert 0 < precision.product_seconds(torch.float32) < 1

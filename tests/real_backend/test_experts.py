"""Experts: sorting tokens by expert changes nothing but the order of the work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from airi_sim.models.layers import Mlp
from real_backend import model as models
from real_backend import weights
from real_backend.experts import Dense, Experts, Router, Shared
from real_backend.linear import linear
from tests.real_backend.families import SPECS
from tests.real_backend.stored import save

pytestmark = pytest.mark.real
WIDTH = 16


def dense(generator: torch.Generator, ffn: int = 24) -> Dense:
    gate_up = torch.randn(2 * ffn, WIDTH, generator=generator) / 4
    return Dense(linear(gate_up), linear(torch.randn(WIDTH, ffn, generator=generator) / 4))


def experts(seed: int, count: int, active: int, renormalise: bool, shared: bool) -> Experts:
    generator = torch.Generator().manual_seed(seed)
    router = Router(torch.randn(count, WIDTH, generator=generator), active, renormalise)
    extra = Shared(dense(generator), torch.randn(1, WIDTH, generator=generator)) if shared else None
    return Experts(router, tuple(dense(generator) for _ in range(count)), extra)


def one_by_one(mlp: Experts, x: Tensor) -> Tensor:
    """Each token through each of its experts."""
    shares, chosen = mlp.router(x)
    rows = []
    for token, weight, picks in zip(x.split(1), shares, chosen.tolist(), strict=True):
        row = sum(share * mlp.experts[pick](token) for share, pick in zip(weight, picks, strict=True))
        rows.append(row + mlp.shared(token) if mlp.shared else row)
    return torch.cat(rows)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    tokens=st.integers(1, 40),
    count=st.integers(1, 6),
    share=st.floats(0, 1),
    renormalise=st.booleans(),
    shared=st.booleans(),
)
def test_a_pass_is_its_tokens_one_by_one(
    seed: int, tokens: int, count: int, share: float, renormalise: bool, shared: bool
) -> None:
    mlp = experts(seed, count, 1 + int(share * (count - 1)), renormalise, shared)
    x = torch.randn(tokens, WIDTH, generator=torch.Generator().manual_seed(seed + 1))
    assert torch.allclose(mlp(x), one_by_one(mlp, x), atol=1e-5)


def test_shares_sum_to_one_only_where_they_are_renormalised() -> None:
    x = torch.randn(50, WIDTH, generator=torch.Generator().manual_seed(0)) / 4
    shares, chosen = experts(1, 8, 3, True, False).router(x)
    raw, same = experts(1, 8, 3, False, False).router(x)
    assert torch.equal(chosen, same)
    assert torch.allclose(shares.sum(-1), torch.ones(50))
    assert (raw.sum(-1) < 0.999).all()
    assert torch.allclose(raw / raw.sum(-1, keepdim=True), shares)


@pytest.mark.parametrize("tokens", [1, 3, 8, 20])
def test_how_many_experts_a_pass_touches_is_known_from_its_tokens(tokens: int) -> None:
    """In expectation, and for a router that prefers nobody: scores of its experts are independent and alike."""
    router, trials = Router(torch.eye(WIDTH), 2, True), 2000
    chosen = router(torch.randn(trials * tokens, WIDTH, generator=torch.Generator().manual_seed(tokens)))[1]
    hit = torch.zeros(trials, WIDTH).scatter_(1, chosen.view(trials, -1), 1.0)
    assert float(hit.sum(-1).mean()) == pytest.approx(Mlp(experts=WIDTH, active=2).touched(tokens), rel=0.01)


def test_closed_form_at_its_ends() -> None:
    mlp = Mlp(experts=16, active=2)
    assert mlp.touched(0) == 0
    assert mlp.touched(1) == 2
    assert mlp.touched(10000) == pytest.approx(16)
    assert Mlp(ffn=8).touched(5) == 0


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_the_experts_of_a_layer_may_lie_in_one_tensor(tmp_path: Path, family: str) -> None:
    """As transformers holds them since version 5."""
    spec = SPECS[family]
    drawn = weights.draw(spec, seed=2)
    fused = {name: tensor for name, tensor in drawn.items() if ".experts." not in name}
    for layer in range(spec.layers):
        prefix = f"model.layers.{layer}.mlp.experts."
        gate, up, down = (
            torch.stack([drawn[f"{prefix}{expert}.{part}_proj.weight"] for expert in range(spec.experts)])
            for part in ("gate", "up", "down")
        )
        fused |= {f"{prefix}gate_up_proj": torch.cat((gate, up), 1), f"{prefix}down_proj": down}
    save(tmp_path / "model.safetensors", fused)
    read = weights.read(spec, tmp_path)
    assert read.keys() == drawn.keys()
    assert all(torch.equal(read[name], drawn[name]) for name in drawn)


def test_experts_have_the_weights_that_the_simulator_counts() -> None:
    for family in ("mixtral", "qwen2_moe", "qwen3_moe"):
        spec = SPECS[family]
        assert sum(tensor.numel() for tensor in weights.draw(spec).values()) == spec.parameters
        assert spec.active_parameters < spec.parameters


def test_without_renormalising_the_model_answers_differently() -> None:
    spec = SPECS["qwen3_moe"]
    raw = replace(spec, kinds=(replace(spec.kinds[0], mlp=replace(spec.routed, renormalise=False)),))
    drawn = weights.draw(spec, seed=1)
    tokens = torch.arange(9)
    one, other = (models.pooled(models.build(each, drawn, "cpu", torch.float32), tokens, [9]) for each in (spec, raw))
    assert not torch.allclose(one, other, atol=1e-3)

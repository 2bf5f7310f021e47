"""Every family gives the tokens and logits of independent implementations, whichever way its sequences are run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from airi_sim.models.layers import Attention, LayerKind, Mlp
from airi_sim.models.spec import ModelSpec
from real_backend import weights
from tests.real_backend.families import CONFIGS, OUTPUTS, PROMPTS, SPECS
from tests.real_backend.published import published
from tests.real_backend.reference import logits as dense
from tests.real_backend.ways import WAYS, Trace

pytestmark = pytest.mark.real
WITHIN = 1e-4


@cache
def drawn(family: str) -> dict[str, Tensor]:
    return weights.draw(SPECS[family], seed=1)


@cache
def by_reference(family: str, tokens: tuple[int, ...]) -> Tensor:
    return dense(SPECS[family], drawn(family), list(tokens))


def check(traces: list[Trace], expected: Callable[[tuple[int, ...]], Tensor]) -> None:
    """The logits of every step are those of `expected` over the whole sequence, and the token is the best of them: so
    all tokens are those of greedy decoding."""
    assert [trace.prompt for trace in traces] == PROMPTS
    for trace in traces:
        whole = expected((*trace.prompt, *trace.tokens))[len(trace.prompt) - 1 : -1]
        assert torch.allclose(trace.logits, whole, atol=WITHIN, rtol=0)
        assert trace.tokens == whole.argmax(-1).tolist()
        assert len(trace.tokens) == OUTPUTS


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", CONFIGS)
def test_tokens_and_logits_are_those_of_the_dense_reference(family: str, way: str) -> None:
    check(WAYS[way](SPECS[family], drawn(family), PROMPTS, OUTPUTS), partial(by_reference, family))


# -- the implementation everybody uses


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", CONFIGS)
def test_published_weights_give_the_logits_of_transformers(family: str, tmp_path: Path) -> None:
    """Its own checkpoint, read as a config.json and safetensors, run in every way."""
    model = published("AutoModelForCausalLM", CONFIGS[family])
    model.save_pretrained(tmp_path)
    spec = ModelSpec.from_config(tmp_path, name=family)
    assert replace(spec, precision="") == replace(SPECS[family], precision="")

    @cache
    @torch.inference_mode()
    def logits(tokens: tuple[int, ...]) -> Tensor:
        return model(torch.tensor([tokens])).logits[0]

    for way in WAYS.values():
        check(way(spec, weights.read(spec, tmp_path), PROMPTS, OUTPUTS), logits)


# -- shapes that nobody published


@st.composite
def shapes(draw: st.DrawFn) -> ModelSpec:
    """Any architecture the decoder may be given: odd widths, one head, one expert, all experts active."""
    kv_heads = draw(st.integers(1, 3))
    attention = Attention(
        heads=kv_heads * draw(st.integers(1, 3)),
        kv_heads=kv_heads,
        head_dim=2 * draw(st.integers(1, 9)),
        qkv_bias=draw(st.booleans()),
        out_bias=draw(st.booleans()),
        qk_norm=draw(st.sampled_from(["", "head"])),
    )
    experts, width, hidden = draw(st.integers(0, 5)), draw(st.integers(1, 40)), draw(st.integers(2, 40))
    routed = Mlp(
        experts=experts,
        active=draw(st.integers(1, max(1, experts))),
        expert_ffn=width,
        shared_ffn=draw(st.integers(0, 20)),
        shared_gate=True,
        renormalise=draw(st.booleans()),
    )
    layer = LayerKind(draw(st.integers(1, 3)), attention, routed if experts else Mlp(width), 2 * hidden)
    vocabulary = draw(st.integers(128, 150))
    return ModelSpec("any", hidden, vocabulary, (layer,), tied=draw(st.booleans()), family="qwen2_moe")


@settings(max_examples=15)
@given(spec=shapes(), way=st.sampled_from(sorted(WAYS)), seed=st.integers(0, 99))
def test_architectures_of_any_shape_are_those_of_the_dense_reference(spec: ModelSpec, way: str, seed: int) -> None:
    tensors = weights.draw(spec, seed)
    for trace in WAYS[way](spec, tensors, PROMPTS, 3):
        whole = dense(spec, tensors, [*trace.prompt, *trace.tokens])[len(trace.prompt) - 1 : -1]
        assert torch.allclose(trace.logits, whole, atol=WITHIN, rtol=0)

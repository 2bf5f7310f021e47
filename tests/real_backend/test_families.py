"""Every family gives the tokens and logits of independent implementations, whichever way its sequences are run."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from airi_sim.models.spec import ModelSpec
from real_backend import weights
from tests.real_backend.families import CONFIGS, OUTPUTS, PROMPTS, SPECS
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


@pytest.fixture(scope="module")
def transformers() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("transformers")


def published(transformers: Any, config: dict[str, Any], kind: str = "AutoModelForCausalLM") -> torch.nn.Module:
    """A model of transformers with random weights, norms included."""
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(3)
        model = getattr(transformers, kind).from_config(transformers.AutoConfig.for_model(**config))
        for name, parameter in model.named_parameters():
            parameter.data.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.05)
        return model.eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", CONFIGS)
def test_published_weights_give_the_logits_of_transformers(transformers: Any, family: str, tmp_path: Path) -> None:
    """Its own checkpoint, read as a config.json and safetensors, run in every way."""
    model = published(transformers, CONFIGS[family])
    model.save_pretrained(tmp_path)
    spec = ModelSpec.from_config(tmp_path, name=family)
    assert replace(spec, precision="") == replace(SPECS[family], precision="")

    @cache
    @torch.inference_mode()
    def logits(tokens: tuple[int, ...]) -> Tensor:
        return model(torch.tensor([tokens])).logits[0]

    for way in WAYS.values():
        check(way(spec, weights.read(spec, tmp_path), PROMPTS, OUTPUTS), logits)

"""Encoders, rerankers and guards: their numbers are those of the dense reference and of transformers."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from airi_sim.core.errors import BadInput
from airi_sim.models.spec import ModelSpec
from real_backend import heads, weights
from real_backend import model as models
from tests.real_backend.families import PROMPTS, SMALL, SPECS
from tests.real_backend.published import published
from tests.real_backend.reference import states

pytestmark = pytest.mark.real
LENGTHS = [len(prompt) for prompt in PROMPTS]
TOKENS = torch.tensor([token for prompt in PROMPTS for token in prompt])


def built(spec: ModelSpec, tensors: dict[str, Tensor] | None = None) -> models.Model:
    return models.build(spec, tensors or weights.draw(spec, seed=1), "cpu", torch.float32)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mixtral"])
def test_pooled_states_are_those_of_the_dense_reference(family: str, causal: bool) -> None:
    spec = SPECS[family]
    dense = [states(spec, weights.draw(spec, seed=1), prompt, causal) for prompt in PROMPTS]
    last = models.pooled(built(spec), TOKENS, LENGTHS, causal, last=True)
    mean = models.pooled(built(spec), TOKENS, LENGTHS, causal)
    assert torch.allclose(last, torch.stack([each[-1] for each in dense]), atol=1e-4)
    assert torch.allclose(mean, torch.stack([each.mean(0) for each in dense]), atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"causal": True, "last": True}], ids=["cross", "causal"])
def test_scores_and_probabilities_do_not_depend_on_the_batch(options: dict[str, bool]) -> None:
    model = built(SPECS["llama"])
    rank, guard = (heads.draw_head(model.spec, labels, seed=5, **options) for labels in (1, 3))
    scores, odds = (f(model, head, TOKENS, LENGTHS) for f, head in ((heads.score, rank), (heads.classify, guard)))
    assert scores.shape == (5,)
    assert torch.allclose(odds.sum(-1), torch.ones(5))
    assert len(set(scores.tolist())) == 5
    for index, prompt in enumerate(PROMPTS):
        alone = torch.tensor(prompt)
        assert heads.score(model, rank, alone, [len(prompt)])[0] == pytest.approx(float(scores[index]), abs=1e-5)
        assert torch.allclose(heads.classify(model, guard, alone, [len(prompt)])[0], odds[index], atol=1e-5)


def test_a_score_hangs_on_query_and_document() -> None:
    model = built(SPECS["qwen3"])
    head = heads.draw_head(model.spec, seed=5)
    query, other, document = PROMPTS[0], PROMPTS[2], PROMPTS[3]
    pairs = [query + document, other + document, query + document[::-1]]
    scores = heads.score(model, head, torch.tensor(list(chain(*pairs))), [len(pair) for pair in pairs])
    assert len({round(score, 4) for score in scores.tolist()}) == 3


def test_a_reranker_has_one_label() -> None:
    model = built(SPECS["llama"])
    with pytest.raises(BadInput, match="head of one label, this one has 2"):
        heads.score(model, heads.draw_head(model.spec, 2), TOKENS, LENGTHS)


@pytest.mark.filterwarnings("ignore")
def test_embeddings_are_those_of_a_published_encoder() -> None:
    """EuroBERT is a Llama that looks both ways."""
    config = SMALL | {"model_type": "eurobert", "tie_word_embeddings": True, "rope_theta": 250000.0}
    config |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "mask_token_id": 3}
    spec = ModelSpec.from_config(config, name="eurobert")
    encoder = published("AutoModel", config)
    model = built(spec, {f"model.{name}": tensor for name, tensor in encoder.state_dict().items()})
    with torch.inference_mode():
        found = [encoder(torch.tensor([prompt])).last_hidden_state[0].mean(0) for prompt in PROMPTS]
    expected = torch.nn.functional.normalize(torch.stack(found), dim=-1)
    assert torch.allclose(models.encode(model, TOKENS, LENGTHS), expected, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("family", "labels"), [("llama", 1), ("qwen3", 1), ("qwen3", 4)])
def test_heads_are_those_of_a_published_sequence_classifier(tmp_path: Path, family: str, labels: int) -> None:
    config: dict[str, Any] = SMALL | {"model_type": family, "tie_word_embeddings": True, "num_labels": labels}
    classifier = published("AutoModelForSequenceClassification", config | {"pad_token_id": 0})
    classifier.save_pretrained(tmp_path)
    spec = ModelSpec.from_config(config, name=family)
    head = heads.read_head(spec, tmp_path, labels)
    with torch.inference_mode():
        expected = torch.cat([classifier(torch.tensor([[1, *prompt, 2]])).logits for prompt in PROMPTS])
    tokens = torch.tensor([token for prompt in PROMPTS for token in (1, *prompt, 2)])
    found = heads.outputs(built(spec, weights.read(spec, tmp_path)), head, tokens, [n + 2 for n in LENGTHS])
    assert torch.allclose(found, expected, atol=1e-4)

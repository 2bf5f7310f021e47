"""The vision tower: image tokens are those of a dense reference and of transformers, and stand in prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from airi_sim.core.errors import BadInput
from airi_sim.models.spec import ModelSpec
from real_backend import model as models
from real_backend import vision, weights
from tests.real_backend import reference
from tests.real_backend.families import SMALL, SPECS
from tests.real_backend.published import published
from tests.real_backend.stored import save

pytestmark = pytest.mark.real
TOWER = {
    "model_type": "siglip_vision_model",
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "num_channels": 3,
    "image_size": 20,
    "patch_size": 5,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
PLACEHOLDER = 127


def config(layer: int = -1, **tower: Any) -> dict[str, Any]:
    """A small LLaVA that reads the states after `layer`."""
    text = SMALL | {"model_type": "llama"}
    keys = {"vision_feature_layer": layer, "vision_feature_select_strategy": "full", "image_token_index": PLACEHOLDER}
    keys |= {"projector_hidden_act": "gelu"}
    return {"model_type": "llava", "text_config": text, "vision_config": TOWER | tower, **keys}


SPEC = ModelSpec.from_config(config(), name="llava")


def built(spec: ModelSpec = SPEC, tensors: Mapping[str, Tensor] | None = None) -> vision.Tower:
    return vision.build(spec, tensors or vision.draw(spec, seed=1), "cpu", torch.float32)


def images(count: int, height: int = 20, width: int = 20) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("layer", [-1, -2, 1])
def test_image_tokens_are_those_of_the_dense_reference(layer: int) -> None:
    spec, pixels = ModelSpec.from_config(config(layer), name="llava"), images(3)
    found = vision.image_features(built(spec), pixels)
    assert found.shape == (3, 16, 64)
    for image, tokens in zip(pixels, found, strict=True):
        assert torch.allclose(tokens, reference.image_features(spec, vision.draw(spec, seed=1), image), atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(20, 20), (10, 35), (5, 5)])
def test_an_image_becomes_as_many_tokens_as_the_simulator_counts(height: int, width: int) -> None:
    assert SPEC.vision is not None
    features = vision.image_features(built(), images(2, height, width))
    assert features.shape == (2, SPEC.vision.tokens(width, height), SPEC.hidden)
    alone = torch.cat([vision.image_features(built(), image[None]) for image in images(2, height, width)])
    assert torch.allclose(features, alone, atol=1e-5)


def test_the_simulator_counts_the_weights_but_biases_and_norms() -> None:
    counted = sum(tensor.numel() for name, tensor in vision.draw(SPEC).items() if tensor.dim() > 1)
    assert SPEC.modules["vision"] == counted


def test_layers_that_nobody_reads_cost_nothing() -> None:
    every, fewer = (ModelSpec.from_config(config(layer)).vision for layer in (-1, -2))
    assert every is not None and fewer is not None
    two, one = (replace(every, layers=layers).flops(16) for layers in (2, 1))
    assert every.flops(16) - fewer.flops(16) == pytest.approx(two - one)
    assert every.parameters == fewer.parameters


@pytest.mark.parametrize("shape", [(1, 20, 20), (3, 21, 20), (3, 20, 0)])
def test_other_images_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match="sides are multiples of 5 pixels"):
        vision.image_features(built(), torch.zeros(2, *shape))


@pytest.mark.parametrize(
    "tower",
    [{"model_type": "clip_vision_model"}, {"spatial_merge_size": 2}, {"temporal_patch_size": 2}, {"image_size": None},
     {"num_attention_heads": 5}, {"hidden_act": "quick_gelu"}, {"layer_norm_eps": 1e-5}],
    ids=lambda tower: next(iter(tower)),
)  # fmt: skip
def test_other_towers_are_refused(tower: dict[str, Any]) -> None:
    spec = ModelSpec.from_config(config(**tower), name="other")
    models.check(spec)  # its language model runs without images
    with pytest.raises(BadInput, match="torch backend cannot run"):
        vision.draw(spec)


@pytest.mark.parametrize(
    ("key", "value", "feature"),
    [
        ("vision_feature_layer", [-2, -1], "of which several layers are read"),
        ("vision_feature_select_strategy", "default", "whose first token is left out"),
        ("projector_hidden_act", "relu", "with relu in its projector"),
    ],
)
def test_other_ways_from_the_tower_to_the_model_are_refused(key: str, value: Any, feature: str) -> None:
    spec = ModelSpec.from_config(config() | {key: value}, name="other")
    with pytest.raises(BadInput, match=f"a vision tower {feature}"):
        vision.draw(spec)


@pytest.mark.parametrize(
    ("dtype", "unit"), [(torch.bfloat16, 2.0**-8), (torch.float16, 2.0**-11)], ids=["bf16", "fp16"]
)
def test_image_tokens_in_half_precision_are_within_four_roundings(dtype: torch.dtype, unit: float) -> None:
    """The limit of `test_precision`; measured is 1 u."""
    tensors = {name: tensor.to(dtype) for name, tensor in vision.draw(SPEC, seed=1).items()}
    half = vision.image_features(vision.build(SPEC, tensors, "cpu", dtype), images(2, 10, 35))
    exact = vision.image_features(built(tensors=tensors), images(2, 10, 35))
    assert half.dtype == dtype
    assert (half.float() - exact).pow(2).mean().sqrt() / exact.pow(2).mean().sqrt() < 4 * unit


def test_the_small_one_is_of_both_worlds() -> None:
    path = Path(__file__).parents[2] / "conf" / "model" / "tiny-vlm.yaml"
    spec = instantiate(OmegaConf.load(path))
    features = vision.image_features(built(spec), images(1, 112, 112))
    assert features.shape[1] == spec.vision.tokens(112, 112) == 64


def test_a_model_without_a_tower_is_refused() -> None:
    with pytest.raises(BadInput, match="'llama' has no vision tower"):
        vision.draw(SPECS["llama"])


def test_image_tokens_stand_in_a_prompt() -> None:
    """What is written at their places is what the layers read, whatever the token there."""
    model = models.build(SPEC, weights.draw(SPEC, seed=1), "cpu", torch.float32)
    states = partial(models.hidden_states, model, positions=torch.arange(6), attend=_mean)
    places, features = torch.tensor([4, 1]), torch.randn(2, SPEC.hidden, generator=torch.Generator().manual_seed(2))
    one, other = torch.arange(6), torch.tensor([0, 99, 2, 3, 98, 5])
    assert not torch.allclose(states(one), states(other))
    with_images = states(one, images=models.Images(places, features))
    assert torch.equal(with_images, states(other, images=models.Images(places, features)))
    same = models.Images(places, model.embedding[one[places]])
    assert torch.equal(states(one, images=same), states(one))


def _mean(_layer: int, qkv: Tensor) -> Tensor:
    """A stand-in for attention in which every token reads every value."""
    return qkv[:, -2:].mean(0).repeat_interleave(2, 0).flatten().expand(len(qkv), -1)


# -- the implementation everybody uses


def logits(spec: ModelSpec, tensors: Mapping[str, Tensor], tokens: list[int], features: Tensor) -> Tensor:
    """By the product code, the whole prompt in one pass."""
    model = models.build(spec, tensors, "cpu", torch.float32)
    ids = torch.tensor(tokens)
    places = (ids == PLACEHOLDER).nonzero()[:, 0]
    spans = ((0, len(tokens)),)
    states = models.hidden_states(
        model,
        ids,
        torch.arange(len(tokens)),
        lambda _, qkv: models._apart(qkv, spec, spans, causal=True),
        models.Images(places, features.flatten(0, 1)),
    )
    return model.head(states)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layer", [-1, -2])
def test_a_prompt_with_images_gives_the_logits_of_transformers(tmp_path: Path, layer: int) -> None:
    """LLaVA's own checkpoint: tower, projector and language model read from the same files."""
    whole = config(layer)
    llava = published("AutoModelForImageTextToText", whole)
    llava.save_pretrained(tmp_path)
    spec = ModelSpec.from_config(tmp_path, name="llava")
    assert spec.vision == ModelSpec.from_config(whole).vision
    pixels, tokens = images(2), [5, 6, *16 * [PLACEHOLDER], 7, *16 * [PLACEHOLDER], 8, 9]
    with torch.inference_mode():
        expected = llava(input_ids=torch.tensor([tokens]), pixel_values=pixels).logits[0]
        found = vision.image_features(built(spec, vision.read(spec, tmp_path)), pixels)
        mine = logits(spec, weights.read(spec, tmp_path), tokens, found)
    assert torch.allclose(mine, expected, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("height", "width"), [(20, 20), (10, 35)])
def test_images_of_other_sizes_are_read_as_transformers_does(height: int, width: int) -> None:
    tower = published("AutoModel", TOWER | {"vision_use_head": False})
    tensors = vision.draw(SPEC, seed=1)
    own = {f"vision_tower.{name.removeprefix('vision_model.')}": value for name, value in tower.state_dict().items()}
    tensors |= {name: value for name, value in own.items() if name in tensors}
    assert len(own.keys() & tensors.keys()) == len(vision.shapes(SPEC)) - 4
    pixels = images(2, height, width)
    with torch.inference_mode():
        outputs = tower(pixels, interpolate_pos_encoding=True, output_hidden_states=True)
        project = [tensors[f"multi_modal_projector.linear_{i}.{part}"] for i in (1, 2) for part in ("weight", "bias")]
        inner = torch.nn.functional.gelu(outputs.hidden_states[-1] @ project[0].T + project[1])
        expected = inner @ project[2].T + project[3]
        assert torch.allclose(vision.image_features(built(tensors=tensors), pixels), expected, atol=1e-4)


def test_older_names_of_a_multimodal_checkpoint_are_read(tmp_path: Path) -> None:
    tower, text = vision.draw(SPEC, seed=1), weights.draw(SPEC, seed=1)
    old = {name.replace("vision_tower.", "vision_tower.vision_model."): tensor for name, tensor in tower.items()}
    old |= {f"language_model.{name}": tensor for name, tensor in text.items()}
    save(tmp_path / "model.safetensors", old)
    for read, drawn in ((vision.read(SPEC, tmp_path), tower), (weights.read(SPEC, tmp_path), text)):
        assert all(torch.equal(read[name], drawn[name]) for name in drawn)

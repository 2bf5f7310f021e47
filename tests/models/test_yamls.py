"""The models in conf are those that were published: each yaml is read to the same spec as its config.json."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from airi_sim.models.spec import ModelSpec

CONF = Path(__file__).parents[2] / "conf" / "model"
PUBLISHED = {
    "llama-2-7b": "meta-llama--Llama-2-7b-hf",
    "llama-2-70b": "meta-llama--Llama-2-70b-hf",
    "llama-3.1-8b": "meta-llama--Meta-Llama-3.1-8B",
    "llama-3.1-70b": "meta-llama--Meta-Llama-3.1-70B",
    "llama-3.1-405b": "meta-llama--Meta-Llama-3.1-405B",
    "mistral-nemo-12b": "mistralai--Mistral-Nemo-Instruct-2407",
    "mixtral-8x7b": "mistralai--Mixtral-8x7B-v0.1",
    "qwen2.5-7b": "Qwen--Qwen2.5-7B-Instruct",
    "qwen3-0.6b": "Qwen--Qwen3-0.6B",
    "qwen3-8b": "Qwen--Qwen3-8B",
    "qwen3-32b": "Qwen--Qwen3-32B",
    "qwen3-30b-a3b": "Qwen--Qwen3-30B-A3B",
    "qwen3-235b-a22b": "Qwen--Qwen3-235B-A22B",
    "yi-34b": "01-ai--Yi-34B",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_yaml_says_what_the_published_config_says(data_dir: Path, name: str) -> None:
    path = data_dir / "models" / f"{PUBLISHED[name]}.json"
    if not path.exists():
        pytest.skip(f"the reference data has no {path.name}")
    assert instantiate(OmegaConf.load(CONF / f"{name}.yaml")) == ModelSpec.from_config(path, name=name)

"""Parameters, KV bytes and config spellings of ModelSpec."""

import json
import os
from pathlib import Path

import pytest
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from airi_sim.core.errors import BadInput
from airi_sim.models.spec import ModelSpec, model

CONF = Path(__file__).parents[2] / "conf" / "model"
PUBLISHED = {
    "llama-3.1-8b": (8_030_261_248, 128),
    "llama-3.1-70b": (70_553_706_496, 320),
    "llama-2-7b": (6_738_415_616, 512),
    "llama-2-70b": (68_976_648_192, 320),
    "qwen2.5-7b": (7_615_616_512, 56),
    "qwen3-0.6b": (596_049_920, 112),
    "qwen3-8b": (8_190_735_360, 144),
    "qwen3-32b": (32_762_123_264, 256),
    "mistral-nemo-12b": (12_247_782_400, 160),
    "mixtral-8x7b": (46_702_792_704, 128),
    "yi-34b": (34_388_917_248, 240),
    "qwen3-30b-a3b": (30_532_122_624, 96),
}
DEEPSEEK_V2_LITE = {
    "model_type": "deepseek_v2", "hidden_size": 2048, "num_hidden_layers": 27, "num_attention_heads": 16,
    "num_key_value_heads": 16, "intermediate_size": 10944, "moe_intermediate_size": 1408, "n_routed_experts": 64,
    "n_shared_experts": 2, "num_experts_per_tok": 6, "first_k_dense_replace": 1, "kv_lora_rank": 512,
    "q_lora_rank": None, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "vocab_size": 102400,
}  # fmt: skip
LLAMA = {
    "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 100,
}  # fmt: skip


def load(name: str) -> ModelSpec:
    return instantiate(OmegaConf.load(CONF / f"{name}.yaml"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_kv_are_the_published_ones(name):
    spec = load(name)
    parameters, kv_kib = PUBLISHED[name]
    assert spec.name == name
    assert spec.parameters == parameters
    assert spec.kv_bytes_per_token("bf16") == kv_kib * 1024


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_yaml_instantiates(path):
    if path.stem == "hf":
        with pytest.raises(InstantiationException, match=r"model\.config=") as wrapped:
            instantiate(OmegaConf.load(path))
        assert isinstance(wrapped.value.__cause__, BadInput)
    else:
        assert instantiate(OmegaConf.load(path)).name == path.stem


def test_active_parameters_of_experts():
    assert load("mixtral-8x7b").active_parameters == pytest.approx(12.88e9, rel=1e-3)
    assert load("qwen3-30b-a3b").active_parameters == pytest.approx(3.35e9, rel=1e-3)
    dense = load("llama-3.1-8b")
    assert dense.active_parameters == dense.parameters


def test_latent_attention():
    spec = ModelSpec.from_config(DEEPSEEK_V2_LITE)
    assert spec.parameters == 15_706_484_224
    assert spec.active_parameters == pytest.approx(2.66e9, rel=5e-3)
    assert spec.kv_bytes_per_token() == 27 * (512 + 64) * 2


def test_a_model_as_small_as_a_cpu_needs():
    assert load("tiny").parameters == 4_000_000
    assert load("small").parameters == pytest.approx(30.9e6, rel=5e-3)


def test_quantisation_leaves_embeddings_head_and_norms_alone():
    spec = load("llama-3.1-8b")
    assert spec.weight_bytes("bf16") == 2 * spec.parameters
    assert spec.weight_bytes("fp8") == spec.parameters + spec.embedding_parameters + spec.modules["norm"]


def test_flops_grow_with_the_context_by_the_attention_only():
    spec = load("llama-3.1-8b")
    assert spec.flops_per_token(0) == pytest.approx(2 * (spec.parameters - spec.vocab * spec.hidden))
    assert spec.flops_per_token(10) - spec.flops_per_token(0) == 10 * spec.layers * 4 * spec.heads * spec.head_dim


@pytest.mark.parametrize(
    ("extra", "field", "value"),
    [
        ({"rope_theta": 5e5}, "rope_theta", 5e5),
        ({"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}, "rope_theta", 5e5),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}, "rope_theta", 1e6),
        ({"torch_dtype": "float16"}, "precision", "fp16"),
        ({"dtype": "float32"}, "precision", "fp32"),
        ({"quantization_config": {"quant_method": "fp8"}, "dtype": "bfloat16"}, "precision", "fp8"),
        ({"head_dim": 32}, "head_dim", 32),
        ({}, "head_dim", 16),
        ({"model_type": "qwen2"}, "qkv_bias", True),
        ({"model_type": "qwen2"}, "out_bias", False),
        ({"model_type": "qwen3"}, "qk_norm", True),
        ({"model_type": "gemma3_text"}, "tied", True),
        ({"num_key_value_heads": None}, "kv_heads", 4),
        ({"sliding_window": 8}, "window_layers", 2),
        ({"sliding_window": 8, "use_sliding_window": False}, "window_layers", 0),
        ({"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}, "window_layers", 1),
    ],
)
def test_every_spelling_of_a_key(extra, field, value):
    assert getattr(ModelSpec.from_config(LLAMA | extra), field) == value


def test_multimodal_configs_are_read_through_their_text_part():
    nested = {"text_config": LLAMA, "model_type": "vl", "torch_dtype": "float16", "tie_word_embeddings": True}
    spec = ModelSpec.from_config(nested)
    assert (spec.hidden, spec.precision, spec.tied) == (64, "fp16", True)


def test_a_shared_expert_its_config_does_not_mention():
    llama4 = LLAMA | {"model_type": "llama4_text", "num_local_experts": 4, "intermediate_size_mlp": 352}
    assert ModelSpec.from_config(llama4).shared_ffn == 176


def test_from_a_file_named_after_it_or_its_folder(tmp_path):
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "other.json").write_text(json.dumps(LLAMA))
    assert model(config=str(folder / "config.json")).name == "my-model"
    assert model(config=str(folder)).layers == 2
    assert model(config=str(tmp_path / "other.json")).name == "other"
    assert model(name="mine", config=str(folder)).name == "mine"


@pytest.mark.parametrize("content", ["", "{not json", "[1]", "{}", '{"hidden_size": "wide"}'])
def test_a_bad_file_is_bad_input(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(BadInput):
        ModelSpec.from_config(path)


def test_a_wrong_type_or_a_missing_file_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match="wrong type"):
        ModelSpec.from_config(LLAMA | {"num_key_value_heads": "many"})
    with pytest.raises(BadInput, match="cannot read"):
        ModelSpec.from_config(tmp_path / "none.json")
    with pytest.raises(BadInput, match="unknown precision 'fp9'"):
        ModelSpec.from_config(LLAMA).weight_bytes("fp9")


def test_every_config_of_the_reference_data():
    folder = Path(os.environ.get("AIRI_DATA", "")) / "models"
    if not os.environ.get("AIRI_DATA") or not folder.is_dir():
        pytest.skip("no reference data: set AIRI_DATA")
    specs = {path.stem.split("--")[-1]: ModelSpec.from_config(path) for path in sorted(folder.glob("*.json"))}
    assert specs["DeepSeek-V3"].parameters == pytest.approx(671e9, rel=0.01)
    assert specs["DeepSeek-V3"].active_parameters == pytest.approx(37.5e9, rel=0.03)
    assert specs["Llama-4-Scout-17B-16E-Instruct"].parameters == pytest.approx(108e9, rel=0.01)
    assert specs["gpt-oss-20b"].parameters == pytest.approx(20.9e9, rel=0.01)
    assert specs["gpt-oss-120b"].parameters == pytest.approx(116.8e9, rel=0.01)
    assert specs["Meta-Llama-3.1-405B"].parameters == 405_853_388_800
    assert specs["Qwen3-32B-FP8"].precision == "fp8"

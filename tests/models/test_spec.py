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
    "llama-3.2-1b": (1_235_814_400, 32),
    "llama-3.2-3b": (3_212_749_824, 112),
    "llama-3.1-405b": (405_853_388_800, 504),
    "mistral-7b": (7_248_023_552, 128),
    "mistral-small-24b": (23_572_403_200, 160),
    "mixtral-8x22b": (140_620_634_112, 224),
    "qwen2.5-72b": (72_706_203_648, 320),
    "gemma-2-9b": (9_241_705_984, 336),
    "phi-4": (14_659_507_200, 200),
    "deepseek-v2-lite": (15_706_484_224, 30.375),
    "deepseek-v3": (671_026_419_200, 68.625),
    "kimi-k2": (1_026_408_232_448, 68.625),
    "qwen3-235b-a22b": (235_093_634_560, 188),
    "gpt-oss-20b": (20_914_757_184, 48),
    "gpt-oss-120b": (116_829_156_672, 72),
    "llama-4-scout": (107_769_861_120, 192),
}
WITH_TOWER = {"qwen3-vl-8b": 8_767_123_696, "gemma-3-27b": 27_432_406_640, "gemma-4-26b-a4b": 25_805_933_872}
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


@pytest.mark.parametrize("name", WITH_TOWER)
def test_a_model_with_a_vision_tower_weighs_what_is_published(name):
    """Biases and norms of the tower are left out."""
    spec = load(name)
    assert spec.parameters == pytest.approx(WITH_TOWER[name], rel=1e-4)
    assert spec.vision is not None and spec.modules["vision"] == spec.vision.parameters


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
    with pytest.raises(BadInput, match="no usable 'num_key_value_heads'"):
        ModelSpec.from_config(LLAMA | {"num_key_value_heads": "many"})
    with pytest.raises(BadInput, match="cannot read"):
        ModelSpec.from_config(tmp_path / "none.json")
    with pytest.raises(BadInput, match="unknown precision 'fp9'"):
        ModelSpec.from_config(LLAMA).weight_bytes("fp9")


REFERENCE = {  # published totals and active weights; measured in the same way by their authors where exact
    "Yi-34B": (34.39e9, 34.39e9), "Qwen2.5-7B-Instruct": (7.616e9, 7.616e9), "Qwen3-0.6B": (0.596e9, 0.596e9),
    "Qwen3-8B": (8.19e9, 8.19e9), "Qwen3-32B": (32.76e9, 32.76e9), "Qwen3-32B-FP8": (32.76e9, 32.76e9),
    "Qwen3-30B-A3B": (30.53e9, 3.35e9), "Qwen3-235B-A22B": (235.1e9, 22.2e9), "Qwen3-VL-8B-Instruct": (8.767e9, 8.19e9),
    "DeepSeek-V3": (671e9, 37.5e9), "gemma-4-26B-A4B": (25.8e9, 3.82e9), "Llama-2-7b-hf": (6.738e9, 6.738e9),
    "Llama-2-70b-hf": (68.98e9, 68.98e9), "Llama-4-Scout-17B-16E-Instruct": (107.8e9, 17.17e9),
    "Meta-Llama-3.1-8B": (8.03e9, 8.03e9), "Meta-Llama-3.1-70B": (70.55e9, 70.55e9),
    "Meta-Llama-3.1-405B": (405.85e9, 405.85e9), "Mistral-Nemo-Instruct-2407": (12.25e9, 12.25e9),
    "Mixtral-8x7B-v0.1": (46.7e9, 12.88e9), "gpt-oss-20b": (20.91e9, 4.19e9), "gpt-oss-120b": (116.83e9, 5.71e9),
}  # fmt: skip


@pytest.fixture(scope="module")
def reference() -> dict[str, ModelSpec]:
    folder = Path(os.environ.get("AIRI_DATA", "")) / "models"
    if not os.environ.get("AIRI_DATA") or not folder.is_dir():
        pytest.skip("no reference data: set AIRI_DATA")
    return {path.stem.split("--")[-1]: ModelSpec.from_config(path) for path in sorted(folder.glob("*.json"))}


def test_every_config_of_the_reference_data_has_its_published_size(reference):
    assert {*reference} >= {*REFERENCE}
    for name, (total, active) in REFERENCE.items():
        assert reference[name].parameters == pytest.approx(total, rel=2e-3), name
        assert reference[name].active_parameters == pytest.approx(active, rel=5e-3), name
        assert reference[name].notes() == (), name


@pytest.mark.parametrize(
    ("name", "mlp", "attention", "embeddings", "active", "checkpoint"),
    [("gpt-oss-20b", 19.12e9, 0.64e9, 1.16e9, 3.61e9, 12.8), ("gpt-oss-120b", 114.71e9, 0.96e9, 1.16e9, 5.13e9, 60.8)],
)
def test_gpt_oss_by_module_as_its_authors_count(reference, name, mlp, attention, embeddings, active, checkpoint):
    """Their model card: MLP with routers, attention, both embeddings, active without the input embedding, GiB."""
    spec = reference[name]
    modules = spec.modules
    assert modules["experts"] + modules["router"] == pytest.approx(mlp, rel=2e-3)
    assert modules["attention"] == pytest.approx(attention, rel=6e-3)
    assert spec.embedding_parameters == pytest.approx(embeddings, rel=2e-3)
    assert spec.active_parameters - modules["embedding"] == pytest.approx(active, rel=2e-3)
    assert spec.weight_bytes("mxfp4") / 2**30 == pytest.approx(checkpoint, rel=2e-3)


def test_published_quantisation_knows_what_it_left_alone(reference):
    oss, dense = reference["gpt-oss-20b"], reference["Qwen3-32B-FP8"]
    assert (oss.precision, dense.precision) == ("mxfp4", "fp8")
    assert oss.stored("experts", "mxfp4") == 0.5 + 1 / 32
    assert oss.stored("attention", "mxfp4") == 2
    assert oss.stored("attention", "fp8") == 1, "somebody else's quantisation converts what it likes"
    assert "precision=fp8 takes them as they are" in dense.notes("bf16")[0] and not dense.notes("fp8")
    assert dense.stored("attention", "fp8") == dense.stored("mlp", "fp8") == 1
    assert {dense.stored(module, "fp8") for module in ("embedding", "head", "norm", "router")} == {2}


def test_layers_with_windows_cache_no_more_than_their_window(reference):
    gemma, oss = reference["gemma-4-26B-A4B"], reference["gpt-oss-20b"]
    local, everywhere = 25 * 2 * 8 * 256, 5 * 2 * 2 * 512
    assert gemma.kv_bytes_per_token() == 2 * (local + everywhere)
    assert gemma.kv_bytes(1024) == 1024 * gemma.kv_bytes_per_token()
    assert gemma.kv_bytes(10_000) == 2 * (local * 1024 + everywhere * 10_000)
    assert oss.window_layers == 12 and oss.window == 128
    assert [(kind.count, kind.attention.kind) for kind in gemma.kinds] == [(25, "window"), (5, "full")]


def test_chunked_attention_sees_its_chunk(reference):
    scout = reference["Llama-4-Scout-17B-16E-Instruct"]
    chunked, full = scout.kinds
    assert (chunked.count, full.count) == (36, 12)
    assert [chunked.attention.seen(context) for context in (0, 1, 8192, 8193, 16384)] == [0, 1, 8192, 1, 8192]
    assert full.attention.seen(16384) == 16384


def test_latent_attention_caches_its_compressed_form(reference):
    deepseek = reference["DeepSeek-V3"]
    assert deepseek.kv_bytes_per_token() == 61 * (512 + 64) * 2
    assert [(kind.count, kind.mlp.experts) for kind in deepseek.kinds] == [(3, 0), (58, 256)]
    assert deepseek.dense_layers == 3 and deepseek.ffn == 18432 and deepseek.shared_ffn == 2048


def test_scaled_positions_give_the_longest_sequence(reference):
    assert reference["gpt-oss-20b"].max_len == 131072
    assert reference["DeepSeek-V3"].max_len == 163840
    assert reference["Meta-Llama-3.1-8B"].max_len == 131072, "llama3 scaling is in max_position_embeddings already"
    scaled = LLAMA | {"max_position_embeddings": 32768}
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    assert ModelSpec.from_config(scaled | {"rope_scaling": yarn}).max_len == 131072
    assert ModelSpec.from_config(scaled | {"rope_scaling": {"type": "linear", "factor": 2.0}}).max_len == 65536


def test_a_vision_tower_is_weighed_and_turns_images_into_tokens(reference):
    spec = reference["Qwen3-VL-8B-Instruct"]
    tower = spec.vision
    assert tower is not None and tower.parameters == pytest.approx(576.4e6, rel=2e-3)
    assert spec.active_parameters == spec.parameters - tower.parameters
    assert tower.patches(1024, 1024) == 64 * 64
    assert tower.tokens(1024, 1024) == 32 * 32
    assert tower.flops(4096) > 2 * 4096 * 27 * (4 * 1152**2 + 2 * 1152 * 4304)
    gemma = reference["gemma-4-26B-A4B"].vision
    assert gemma is not None and gemma.parameters == pytest.approx(572.8e6, rel=2e-3)
    assert gemma.tokens(640, 480) == gemma.tokens(100, 100) == 280


def test_linear_attention_has_a_state_instead_of_a_cache():
    hybrid = LLAMA | {
        "model_type": "qwen3_next", "num_hidden_layers": 4, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
        "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_conv_kernel_dim": 4,
    }  # fmt: skip
    spec = ModelSpec.from_config(hybrid)
    assert [(kind.count, kind.attention.kind) for kind in spec.kinds] == [(3, "linear"), (1, "full")]
    assert spec.kv_bytes(1000) == 1000 * spec.kv_bytes_per_token() + 4 * 3 * 4 * 8 * 8
    assert spec.flops_per_token(2000) - spec.flops_per_token(1000) == 1000 * spec.attention.pair_flops


@pytest.mark.parametrize(
    ("config", "precision", "bytes_each", "kept"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}, "int4", 0.5 + 2.5 / 128, set()),
        ({"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True}, "int4", 0.5 + 2 / 32, set()),
        ({"quant_method": "gptq", "bits": 8, "group_size": 128}, "int8", 1.0, set()),
        ({"quant_method": "fp8", "modules_to_not_convert": ["lm_head", "model.layers.0.self_attn.o_proj",
          "model.layers.1.self_attn.o_proj"]}, "fp8", 1.0, {"attention"}),
        ({"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}, "mxfp4", 0.53125,
         {"attention"}),
        ({"quant_method": "compressed-tensors", "ignore": ["lm_head"], "config_groups": {"group_0": {"weights":
          {"num_bits": 8, "type": "float"}}}}, "fp8", 1.0, set()),
        ({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int",
          "group_size": 64}}}}, "int4", 0.5 + 2 / 64, set()),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4", 0.5625, set()),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "int8", 1.0, set()),
    ],
)  # fmt: skip
def test_every_way_to_quantise(config, precision, bytes_each, kept):
    spec = ModelSpec.from_config(LLAMA | {"quantization_config": config})
    assert spec.precision == precision
    assert spec.stored("mlp", precision) == pytest.approx(bytes_each)
    assert spec.quantisation is not None and spec.quantisation.kept == kept
    assert spec.stored("attention", precision) == pytest.approx(2.0 if "attention" in kept else bytes_each)


@pytest.mark.parametrize(
    ("extra", "wanted"),
    [
        ({"quantization_config": {"quant_method": "aqlm"}}, "quantised by 'aqlm'"),
        ({"num_key_value_heads": 3}, "must be a multiple"),
        ({"hidden_size": 3}, "head_dim of 0"),
        ({"num_key_value_heads": -1}, "no usable 'num_key_value_heads'"),
        ({"num_local_experts": 4, "num_experts_per_tok": 5}, "only 4"),
        ({"layer_types": ["full_attention"]}, "must name 2 layers"),
        ({"layer_types": ["full_attention", "telepathy"]}, "telepathy"),
        ({"intermediate_size": None}, "no usable 'intermediate_size'"),
        ({"is_encoder_decoder": True}, "not known here"),
        ({"text_config": "none"}, "wrong type"),
    ],
)
def test_configs_that_make_no_sense_are_refused_in_one_sentence(extra, wanted):
    with pytest.raises(BadInput, match=wanted):
        ModelSpec.from_config(LLAMA | extra)

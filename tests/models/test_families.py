"""Weights of many architectures, counted by us and by their reference implementation."""

from typing import Any

import pytest

from airi_sim.core.errors import BadInput
from airi_sim.models.families import CHECKED, FOREIGN
from airi_sim.models.spec import ModelSpec

pytestmark = pytest.mark.real
NEEDS_MORE = ("qwen3_vl_text",)
"""Architectures whose text part alone is no causal language model there."""

SMALL: dict[str, Any] = {"num_hidden_layers": 8, "layer_types": None, "max_window_layers": 4}
SMALL |= {"vocab_size": 50_304, "vocab_size_per_layer_input": 50_304, "pad_token_id": None}
WIDENED = {
    "model_type": "gemma4_text", "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 10,
    "num_attention_heads": 8, "num_key_value_heads": 1, "num_kv_shared_layers": 5, "use_double_wide_mlp": True,
    "hidden_size_per_layer_input": 64, "vocab_size": 4096, "vocab_size_per_layer_input": 4096, "sliding_window": 512,
    "layer_types": (["sliding_attention"] * 4 + ["full_attention"]) * 2, "head_dim": 64, "global_head_dim": 128,
}  # fmt: skip
QUADRATIC = {
    "model_type": "gemma4_text", "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 6,
    "num_attention_heads": 8, "num_key_value_heads": 4, "num_global_key_value_heads": 2, "attention_k_eq_v": True,
    "enable_moe_block": True, "num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 128, "vocab_size": 4096,
    "hidden_size_per_layer_input": 0, "sliding_window": 512, "head_dim": 64, "global_head_dim": 128,
}  # fmt: skip
INTERLEAVED = {
    "model_type": "llama4_text", "hidden_size": 512, "intermediate_size": 256, "intermediate_size_mlp": 1024,
    "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64, "num_local_experts": 4,
    "interleave_moe_layer_step": 2, "vocab_size": 4096,
}  # fmt: skip
SPARSE_STEPS = {
    "model_type": "qwen3_moe", "hidden_size": 512, "intermediate_size": 1024, "moe_intermediate_size": 128,
    "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 2, "num_experts": 4, "vocab_size": 4096,
    "decoder_sparse_step": 2, "mlp_only_layers": [3],
}  # fmt: skip


def counted(config: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Parameters of the reference implementation, and the config with its defaults filled in."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if config["model_type"] not in CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} does not know {config['model_type']}")
    made = CONFIG_MAPPING[config["model_type"]](**{key: value for key, value in config.items() if key != "model_type"})
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(made)
    return sum(tensor.numel() for tensor in model.parameters()), made.to_dict()


@pytest.mark.parametrize("family", [name for name in CHECKED if name not in NEEDS_MORE])
def test_weights_are_those_of_the_reference_implementation(family):
    parameters, config = counted(SMALL | {"model_type": family})
    spec = ModelSpec.from_config(config)
    assert spec.notes() == ()
    assert spec.parameters == pytest.approx(parameters, rel=3e-4)


@pytest.mark.parametrize("config", [WIDENED, QUADRATIC, INTERLEAVED, SPARSE_STEPS], ids=["wide", "moe", "nth", "step"])
def test_layers_of_unlike_kinds(config):
    spec = ModelSpec.from_config(config)
    assert len(spec.kinds) > 1
    assert spec.parameters == pytest.approx(counted(config)[0], rel=1e-4)


@pytest.mark.parametrize("family", FOREIGN)
def test_architectures_with_unknown_parts_are_refused(family):
    with pytest.raises(BadInput, match="parts that are not known here"):
        ModelSpec.from_config({"model_type": family, "hidden_size": 64})


def test_an_unknown_architecture_is_read_as_a_llama_and_says_so():
    config = {"model_type": "novel", "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2,
              "num_attention_heads": 4, "vocab_size": 100}  # fmt: skip
    assert "'novel'" in ModelSpec.from_config(config).notes()[0]
    assert (
        ModelSpec.from_config(config).parameters == ModelSpec.from_config(config | {"model_type": "llama"}).parameters
    )

"""Small models of every family that the torch backend runs, as their config.json says it."""

from __future__ import annotations

from typing import Any

from airi_sim.models.spec import ModelSpec

SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 128,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
EXPERTS = {"num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 40, "decoder_sparse_step": 1}

CONFIGS: dict[str, dict[str, Any]] = {
    "llama": SMALL | {"model_type": "llama"},
    "llama_tied": SMALL | {"model_type": "llama", "tie_word_embeddings": True, "num_key_value_heads": 4},
    "llama3": SMALL | {"model_type": "llama", "rope_parameters": LLAMA3, "attention_bias": True},
    "llama_linear": SMALL
    | {"model_type": "llama", "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}},
    "mistral": SMALL | {"model_type": "mistral", "sliding_window": None, "num_key_value_heads": 1},
    "qwen2": SMALL | {"model_type": "qwen2", "rope_theta": 1e6},
    "qwen2_tied": SMALL | {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": SMALL | {"model_type": "qwen3", "head_dim": 32, "rms_norm_eps": 1e-6},
    "qwen3_tied": SMALL | {"model_type": "qwen3", "tie_word_embeddings": True},
    "mixtral": SMALL | {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2, "rope_theta": 1e6},
    "qwen2_moe": SMALL | EXPERTS | {"model_type": "qwen2_moe", "shared_expert_intermediate_size": 48},
    "qwen3_moe": SMALL | EXPERTS | {"model_type": "qwen3_moe", "norm_topk_prob": True},
}
SPECS = {name: ModelSpec.from_config(config, name=name) for name, config in CONFIGS.items()}

PROMPTS = [
    [(7 * index * index + 3 * shift + 5) % SMALL["vocab_size"] for index in range(length)]
    for shift, length in enumerate((23, 1, 9, 38, 16))
]
OUTPUTS = 6

"""What a config.json leaves to the code of its architecture, by `model_type`: facts of the reference implementations.

What is in no table here is a Llama: gated MLP, grouped-query attention, two norms a layer, no biases.
"""

CHECKED = (
    "apertus", "arcee", "cohere", "cohere2", "deepseek_v2", "deepseek_v3", "ernie4_5", "ernie4_5_moe", "exaone4",
    "falcon", "flex_olmo", "gemma", "gemma2", "gemma3_text", "gemma4_text", "glm4", "glm4_moe", "glm4_moe_lite", "gpt2",
    "gpt_neox", "gpt_oss", "granite", "granitemoe", "granitemoeshared", "internlm3", "kimi_k2", "llama", "llama4_text",
    "minimax_m2", "ministral3", "mistral", "mixtral", "olmo", "olmo2", "olmo3", "olmoe", "opt", "phi", "phi3", "phimoe",
    "qwen2", "qwen2_moe", "qwen3", "qwen3_5_moe_text", "qwen3_5_text", "qwen3_moe", "qwen3_next", "qwen3_vl_text",
    "seed_oss", "smollm3", "solar_open", "stablelm", "starcoder2",
)  # fmt: skip
"""Architectures whose weights were counted against their reference implementation."""

FOREIGN = (
    "bamba", "deepseek_v32", "falcon_h1", "falcon_mamba", "gemma3n_text", "granitemoehybrid", "jamba", "jetmoe",
    "kimi_linear", "lfm2", "lfm2_moe", "longcat_flash", "mamba", "mamba2", "minimax", "nemotron_h", "recurrent_gemma",
    "rwkv", "xlstm", "zamba2",
)  # fmt: skip
"""Architectures with parts that are not known here: state spaces, sparse or lightning attention, two blocks a layer."""

TIED = ("cohere", "falcon", "gemma", "gpt2", "gpt_bigcode", "opt", "starcoder2")
"""Beginnings of architectures whose output head is the embedding unless the config says otherwise."""

UNGATED = (
    "apertus", "arcee", "bloom", "falcon", "gpt2", "gpt_bigcode", "gpt_neox", "gptj", "mpt", "nemotron", "opt", "phi",
    "starcoder2",
)  # fmt: skip
"""The MLP has one projection in and one out."""

MLP_BIAS = ("gpt2", "gpt_bigcode", "gpt_neox", "gptj", "opt", "phi", "starcoder2")
ROUTER_BIAS = ("deepseek_v3", "glm4_moe", "gpt_oss", "kimi_k2", "minimax_m2")
SHARED_GATE = ("qwen2_moe", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_next")
RAW_SHARES = ("deepseek_v2", "flex_olmo", "olmoe", "qwen2_moe", "qwen3_moe")
"""Experts count by their share among all, unless `norm_topk_prob` says that those of the chosen ones sum to one."""

LEARNED_POSITIONS = ("gpt2", "gpt_bigcode", "opt")

NORMS = {
    "cohere": 1, "cohere2": 1, "falcon": 2, "gemma2": 4, "gemma3": 4, "gemma3_text": 4, "gemma4_text": 4, "glm4": 4,
    "gpt2": 4, "gpt_neox": 4, "nemotron": 4, "olmo": 0, "opt": 4, "phi": 2, "starcoder2": 4,
}  # fmt: skip
"""Norm vectors as wide as the model in one layer, biases of the norms counted; 2 where nothing is said."""

PERIOD = {
    "cohere2": 4, "exaone4": 4, "gemma2": 2, "gemma3": 6, "gemma3_text": 6, "gemma4_text": 6, "gpt_oss": 2,
    "llama4_text": 4, "olmo3": 4, "qwen3_5_moe_text": 4, "qwen3_5_text": 4, "qwen3_next": 4,
}  # fmt: skip
"""Every how manieth layer attends to all tokens, where the config does not list its layers."""

QKV_BIAS = (
    "chatglm", "gpt2", "gpt_bigcode", "opt", "phi", "qwen2", "qwen2_5_vl_text", "qwen2_moe", "qwen2_vl_text",
)  # fmt: skip
OUT_BIAS = ("gpt2", "gpt_bigcode", "opt", "phi")
QKV_BIAS_ONLY = ("glm4", "glm4_moe", "qwen2", "qwen2_moe")
"""`attention_bias` does not reach the output projection."""

QK_NORM = ("exaone4", "gemma3", "gemma4", "hunyuan_v1", "qwen3")
WHOLE_QK_NORM = ("minimax_m2", "olmo2", "olmo3", "olmoe")
"""Beginnings of architectures that normalise queries and keys, by head or over all heads."""

LINEAR = ("qwen3_5", "qwen3_next")
"""Beginnings of architectures whose local layers are linear attention and whose attention has an output gate."""

GATED_TOWERS = ("gemma4_vision", "pixtral", "qwen2_5_vl")
"""Vision towers whose MLP has a gate."""

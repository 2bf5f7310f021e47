"""Hugging Face config.json to the fields of a ModelSpec: every spelling of a key that is in use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airi_sim.core.errors import BadInput

DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "float8_e4m3fn": "fp8"}
QUANTISED = {"fp8": "fp8", "compressed-tensors": "fp8", "mxfp4": "mxfp4", "awq": "int4", "gptq": "int4"}


def fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of ModelSpec; multimodal configs are read through `text_config`."""
    text = config.get("text_config") or config
    heads = _count(text, "num_attention_heads")
    hidden = _count(text, "hidden_size")
    found = {
        "hidden": hidden,
        "layers": _count(text, "num_hidden_layers"),
        "heads": heads,
        "kv_heads": int(text.get("num_key_value_heads") or heads),
        "head_dim": int(text.get("head_dim") or hidden // heads),
        "ffn": int(text.get("intermediate_size_mlp") or _count(text, "intermediate_size")),
        "vocab": _count(text, "vocab_size"),
        "max_len": int(text.get("max_position_embeddings") or 4096),
        "tied": _tied(config, text),
        "rope_theta": _rope_theta(text),
        "rms_eps": float(text.get("rms_norm_eps") or 1e-6),
        "precision": _precision(config, text),
    }
    return found | _attention(text) | _experts(text) | _latent(text) | _window(text)


def _count(text: Mapping[str, Any], key: str) -> int:
    value = text.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadInput(
            f"the model config has no usable '{key}' ({value!r}): it must be a whole number of at least 1, "
            "as in a Hugging Face config.json."
        )
    return value


def _kind(text: Mapping[str, Any]) -> str:
    return str(text.get("model_type", "llama"))


def _tied(config: Mapping[str, Any], text: Mapping[str, Any]) -> bool:
    """Gemma configs leave out what is their default."""
    default = _kind(text).startswith("gemma")
    return bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", default)))


def _rope_theta(text: Mapping[str, Any]) -> float:
    """`rope_theta`, or `rope_parameters` of transformers 5, which may hold one entry per kind of layer."""
    nested = text.get("rope_parameters") or {}
    nested = nested.get("full_attention", nested)
    return float(text.get("rope_theta") or nested.get("rope_theta") or 10000.0)


def _precision(config: Mapping[str, Any], text: Mapping[str, Any]) -> str:
    method = (config.get("quantization_config") or text.get("quantization_config") or {}).get("quant_method")
    dtype = text.get("dtype") or text.get("torch_dtype") or config.get("dtype") or config.get("torch_dtype")
    return QUANTISED.get(str(method)) or DTYPES.get(str(dtype), "bf16")


def _attention(text: Mapping[str, Any]) -> dict[str, Any]:
    kind = _kind(text)
    bias = bool(text.get("attention_bias", False))
    return {
        "qkv_bias": bias or kind in ("qwen2", "qwen2_moe"),
        "out_bias": bias and kind not in ("qwen2", "qwen2_moe"),
        "qk_norm": kind.startswith(("qwen3", "gemma3", "gemma4")),
    }


def _experts(text: Mapping[str, Any]) -> dict[str, Any]:
    experts = int(text.get("num_experts") or text.get("num_local_experts") or text.get("n_routed_experts") or 0)
    if not experts:
        return {}
    each = int(text.get("moe_intermediate_size") or _count(text, "intermediate_size"))
    per_token = text.get("num_experts_per_tok") or text.get("experts_per_token") or text.get("top_k_experts") or 1
    return {
        "experts": experts,
        "active_experts": int(per_token),
        "expert_ffn": each,
        "shared_ffn": _shared(text, each),
        "dense_layers": int(text.get("first_k_dense_replace") or 0),
    }


def _shared(text: Mapping[str, Any], each: int) -> int:
    """Llama 4 has one shared expert that its config does not mention; Gemma 4 adds its experts to a dense MLP."""
    if _kind(text).startswith("llama4"):
        return each
    if text.get("enable_moe_block"):
        return _count(text, "intermediate_size")
    return int(text.get("shared_expert_intermediate_size") or (text.get("n_shared_experts") or 0) * each)


def _latent(text: Mapping[str, Any]) -> dict[str, Any]:
    if not text.get("kv_lora_rank"):
        return {}
    return {
        "kv_rank": _count(text, "kv_lora_rank"),
        "q_rank": int(text.get("q_lora_rank") or 0),
        "rope_dim": _count(text, "qk_rope_head_dim"),
        "nope_dim": _count(text, "qk_nope_head_dim"),
        "v_dim": _count(text, "v_head_dim"),
    }


def _window(text: Mapping[str, Any]) -> dict[str, Any]:
    window = int(text.get("sliding_window") or 0)
    if not window or text.get("use_sliding_window") is False:
        return {}
    kinds = text.get("layer_types")
    layers = _count(text, "num_hidden_layers")
    return {"window": window, "window_layers": kinds.count("sliding_attention") if kinds else layers}

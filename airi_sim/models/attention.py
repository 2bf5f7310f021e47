"""Which attention each layer of a config.json has: full, sliding, chunked, latent or linear."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from airi_sim.core.errors import BadInput
from airi_sim.models.config import count, kind_of, number
from airi_sim.models.families import LINEAR, OUT_BIAS, PERIOD, QK_NORM, QKV_BIAS, QKV_BIAS_ONLY, WHOLE_QK_NORM
from airi_sim.models.layers import Attention

FULL, SLIDING, CHUNKED, RECURRENT = "full_attention", "sliding_attention", "chunked_attention", "linear_attention"


def attentions(text: Mapping[str, Any]) -> list[Attention]:
    """The attention of each layer, first to last."""
    names = layer_types(text)
    made = {name: _of(text, name) for name in {*names}}
    first_borrower = len(names) - number(text, "num_kv_shared_layers")
    if first_borrower < 1:
        raise BadInput("num_kv_shared_layers of the model config leaves no layer with a KV cache of its own.")
    return [made[n] if i < first_borrower else replace(made[n], borrows=True) for i, n in enumerate(names)]


def layer_types(text: Mapping[str, Any]) -> list[str]:
    """One of FULL, SLIDING, CHUNKED, RECURRENT a layer: `layer_types`, or the rule of the architecture."""
    layers = count(text, "num_hidden_layers")
    listed = text.get("layer_types")
    if listed is None:
        return [_type(text, layer) for layer in range(layers)]
    if len(listed) != layers or not {*listed} <= {FULL, SLIDING, CHUNKED, RECURRENT}:
        raise BadInput(
            f"layer_types of the model config must name {layers} layers, each one of {FULL}, {SLIDING}, {CHUNKED} or "
            f"{RECURRENT}: it names {len(listed)}, among them {', '.join(sorted({*map(str, listed)}))}."
        )
    return [str(name) for name in listed]


def _type(text: Mapping[str, Any], layer: int) -> str:
    kind = kind_of(text)
    period = number(text, "sliding_window_pattern", "_sliding_window_pattern", "full_attention_interval")
    period = period or PERIOD.get(kind, 0)
    local = bool((layer + 1) % period) if period else layer >= _first_sliding(text)
    if not local:
        return FULL
    if kind.startswith(LINEAR):
        return RECURRENT
    return CHUNKED if text.get("attention_chunk_size") else SLIDING


def _first_sliding(text: Mapping[str, Any]) -> int:
    """Qwen configs say from which layer on; others slide on all."""
    return number(text, "max_window_layers") if kind_of(text).startswith("qwen") else 0


def _of(text: Mapping[str, Any], name: str) -> Attention:
    if name == RECURRENT:
        return _linear(text)
    made = _latent(text) if text.get("kv_lora_rank") else _grouped(text)
    if name == FULL:
        return _global(text, made)
    return replace(made, window=_window(text, name), chunked=name == CHUNKED)


def _window(text: Mapping[str, Any], name: str) -> int:
    """A window no shorter than the longest sequence is none."""
    window = number(text, "attention_chunk_size" if name == CHUNKED else "sliding_window")
    longest = number(text, "max_position_embeddings")
    off = text.get("use_sliding_window") is False or (longest and window >= longest)
    return 0 if off else window


def _heads(text: Mapping[str, Any]) -> tuple[int, int, int]:
    """Query heads, heads of keys and values, and the width of a head."""
    kind, heads = kind_of(text), count(text, "num_attention_heads")
    single = kind in ("falcon", "gpt_bigcode") and text.get("multi_query") and not text.get("new_decoder_architecture")
    kv_heads = 1 if single else number(text, "num_key_value_heads") or heads
    width = number(text, "head_dim") or count(text, "hidden_size") // heads
    if heads % kv_heads or not width:
        raise BadInput(
            f"the model config has {heads} attention heads, {kv_heads} key-value heads and a head_dim of {width}: the "
            "first must be a multiple of the second, the last at least 1."
        )
    return heads, kv_heads, width


def _grouped(text: Mapping[str, Any]) -> Attention:
    kind, (heads, kv_heads, head_dim) = kind_of(text), _heads(text)
    bias = bool(text.get("attention_bias") or text.get("use_bias"))
    return Attention(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        qkv_bias=bias or bool(text.get("qkv_bias")) or kind in QKV_BIAS,
        out_bias=bool(text.get("attention_out_bias", bias and kind not in QKV_BIAS_ONLY)) or kind in OUT_BIAS,
        qk_norm=_qk_norm(text),
        sinks=kind == "gpt_oss",
        gate=kind.startswith(LINEAR),
    )


def _qk_norm(text: Mapping[str, Any]) -> str:
    kind = kind_of(text)
    if kind.startswith(WHOLE_QK_NORM):
        return "whole"
    weighted = text.get("use_qk_norm") and not kind.startswith("llama4")
    return "head" if kind.startswith(QK_NORM) or weighted else ""


def _global(text: Mapping[str, Any], made: Attention) -> Attention:
    """Gemma 4: the layers that attend to all tokens have fewer and wider heads, and may share keys with values."""
    shared = bool(text.get("attention_k_eq_v"))
    wide = number(text, "global_head_dim") or (512 if kind_of(text) == "gemma4_text" else made.head_dim)
    heads = number(text, "num_global_key_value_heads") if shared else 0
    return replace(made, head_dim=wide, kv_heads=heads or made.kv_heads, keys_are_values=shared)


def _latent(text: Mapping[str, Any]) -> Attention:
    heads, rope, nope = (count(text, key) for key in ("num_attention_heads", "qk_rope_head_dim", "qk_nope_head_dim"))
    return Attention(
        heads=heads,
        kv_heads=heads,
        head_dim=rope + nope,
        v_dim=count(text, "v_head_dim"),
        kv_rank=count(text, "kv_lora_rank"),
        q_rank=number(text, "q_lora_rank"),
        rope_dim=rope,
        nope_dim=nope,
        qkv_bias=bool(text.get("attention_bias")),
        out_bias=bool(text.get("attention_bias")),
    )


def _linear(text: Mapping[str, Any]) -> Attention:
    """Gated delta rule (Qwen3-Next): queries and keys per key head, values and gates per value head, a short
    convolution, one matrix of state per value head."""
    hidden, heads = count(text, "hidden_size"), count(text, "linear_num_value_heads")
    key, value = count(text, "linear_key_head_dim"), count(text, "linear_value_head_dim")
    keys, values = count(text, "linear_num_key_heads") * key, heads * value
    convolution = (2 * keys + values) * count(text, "linear_conv_kernel_dim")
    projections = hidden * (2 * keys + 3 * values + 2 * heads)
    return Attention(0, 0, 0, state=heads * key * value, extra=projections + convolution + 2 * heads + value)

"""Hugging Face config.json to the fields of a ModelSpec: every spelling of a key that is in use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from airi_sim.core.errors import BadInput
from airi_sim.models.attention import attentions
from airi_sim.models.config import above_0, count, kind_of, number, spelled
from airi_sim.models.families import (
    FOREIGN,
    LEARNED_POSITIONS,
    MLP_BIAS,
    NORMS,
    RAW_SHARES,
    ROUTER_BIAS,
    SHARED_GATE,
    TIED,
    UNGATED,
)
from airi_sim.models.layers import LayerKind, Mlp
from airi_sim.models.precision import quantisation
from airi_sim.models.rope import rope, scaling
from airi_sim.models.vision import vision

DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "float8_e4m3fn": "fp8"}

MOST_LAYERS = 10_000


def fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of ModelSpec; multimodal configs are read through `text_config`."""
    text = spelled(config.get("text_config") or config.get("llm_config") or config)
    _check_known(config, text)
    hidden, layers = count(text, "hidden_size"), count(text, "num_hidden_layers")
    if layers > MOST_LAYERS:
        raise BadInput(f"the model config has {layers} layers: at most {MOST_LAYERS:,} can be meant.")
    quantised = quantisation(config.get("quantization_config") or text.get("quantization_config"), layers)
    return {
        "hidden": hidden,
        "vocab": count(text, "vocab_size"),
        "kinds": kinds(text),
        "max_len": _longest(text),
        "tied": _tied(config, text),
        "rope_theta": _rope_theta(text),
        "rope_scaling": scaling(text),
        "rms_eps": above_0(text.get("rms_norm_eps") or 1e-6, "rms_norm_eps"),
        "precision": quantised.precision if quantised else _dtype(config, text),
        "quantisation": quantised,
        "vision": vision(config, hidden),
        "positions": number(text, "max_position_embeddings") if kind_of(text) in LEARNED_POSITIONS else 0,
        "per_layer": number(text, "hidden_size_per_layer_input"),
        "family": kind_of(text),
    }


def kinds(text: Mapping[str, Any]) -> tuple[LayerKind, ...]:
    """The layers of the model by kind, in the order in which the kinds first appear."""
    hidden = count(text, "hidden_size")
    pairs = Counter(zip(attentions(text), _mlps(text), strict=True))
    return tuple(LayerKind(n, attention, mlp, _norms(text, mlp) * hidden) for (attention, mlp), n in pairs.items())


def _check_known(config: Mapping[str, Any], text: Mapping[str, Any]) -> None:
    kind = kind_of(text)
    if config.get("is_encoder_decoder") or kind in FOREIGN:
        raise BadInput(
            f"the architecture '{kind}' has parts that are not known here: take a decoder-only transformer of "
            "attention and MLP layers, such as those in conf/model."
        )


def _dtype(config: Mapping[str, Any], text: Mapping[str, Any]) -> str:
    dtype = text.get("dtype") or text.get("torch_dtype") or config.get("dtype") or config.get("torch_dtype")
    return DTYPES.get(str(dtype).removeprefix("torch."), "bf16")


def _tied(config: Mapping[str, Any], text: Mapping[str, Any]) -> bool:
    """Some configs leave out what is the default of their architecture."""
    return bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", kind_of(text).startswith(TIED))))


def _rope_theta(text: Mapping[str, Any]) -> float:
    return above_0(text.get("rope_theta") or rope(text).get("rope_theta") or 10000.0, "rope_theta")


def _longest(text: Mapping[str, Any]) -> int:
    """Longest sequence: some kinds of scaling extend max_position_embeddings, others are already in it."""
    longest = number(text, "max_position_embeddings") or 4096
    found = rope(text)
    kind, factor = found.get("rope_type") or found.get("type"), above_0(found.get("factor") or 1.0, "factor")
    if kind == "yarn":
        return int(number(found, "original_max_position_embeddings") * factor) or longest
    return int(longest * factor) if kind in ("linear", "dynamic") else longest


def _norms(text: Mapping[str, Any], mlp: Mlp) -> int:
    """Gemma 4 has three more norms around its experts, and one after an embedding of the layer."""
    more = 3 * bool(mlp.experts and text.get("enable_moe_block")) + bool(text.get("hidden_size_per_layer_input"))
    return NORMS.get(kind_of(text), 2) + more


def _mlps(text: Mapping[str, Any]) -> list[Mlp]:
    """The MLP of each layer."""
    layers, kind = count(text, "num_hidden_layers"), kind_of(text)
    gated, bias = kind not in UNGATED, bool(text.get("mlp_bias")) or kind in MLP_BIAS
    experts = number(text, "num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
    if not experts:
        dense = Mlp(gated=gated, bias=bias, activation=_activation(text))
        return [replace(dense, ffn=_ffn(text) * wide) for wide in _widened(text, layers)]
    sparse = [_sparse(text, layer) for layer in range(layers)]
    dense = Mlp(ffn=0 if all(sparse) else _ffn(text), gated=gated, bias=bias, activation=_activation(text))
    routed = _experts(text, experts)
    return [routed if is_sparse else dense for is_sparse in sparse]


def _activation(text: Mapping[str, Any]) -> str:
    return str(text.get("hidden_act") or text.get("hidden_activation") or "silu")


def _widened(text: Mapping[str, Any], layers: int) -> list[int]:
    """By how much each dense MLP is wider: Gemma 4 may double those of layers that borrow their KV."""
    borrowers = number(text, "num_kv_shared_layers") if text.get("use_double_wide_mlp") else 0
    return [1] * (layers - borrowers) + [2] * borrowers


def _ffn(text: Mapping[str, Any]) -> int:
    """Of the old architectures some leave it out: four times the width of the model."""
    width = number(text, "intermediate_size_mlp", "intermediate_size")
    if not width and kind_of(text) in UNGATED:
        return 4 * count(text, "hidden_size")
    return width or count(text, "intermediate_size")


def _sparse(text: Mapping[str, Any], layer: int) -> bool:
    """Whether this layer has the experts: leading dense layers, every nth layer, or a list, by architecture."""
    named = text.get("mlp_layer_types")
    if named:
        return bool(named[layer] != "dense")
    frequency = text.get("moe_layer_freq")
    if isinstance(frequency, list):
        return bool(frequency[layer])
    if text.get("moe_layers"):
        return layer in text["moe_layers"]
    leading = number(text, "first_k_dense_replace", "moe_layer_start_index")
    if layer < leading or layer in (text.get("mlp_only_layers") or ()):
        return False
    every = number(text, "interleave_moe_layer_step", "decoder_sparse_step", "moe_layer_interval") or 1
    return (layer + 1) % every == 0 and layer % (frequency or 1) == 0


def _experts(text: Mapping[str, Any], experts: int) -> Mlp:
    kind = kind_of(text)
    each = number(text, "moe_intermediate_size", "ffn_hidden_size") or count(text, "intermediate_size")
    active = number(text, "num_experts_per_tok", "experts_per_token", "top_k_experts", "moe_k") or 1
    if active > experts:
        raise BadInput(f"the model config sends each token to {active} experts, but has only {experts}: one is wrong.")
    hidden, gemma = count(text, "hidden_size"), bool(text.get("enable_moe_block"))
    return Mlp(
        experts=experts,
        active=active,
        expert_ffn=each,
        shared_ffn=_shared(text, each),
        bias=kind == "gpt_oss",
        router_bias=kind in ROUTER_BIAS,
        router_extra=hidden + experts if gemma else 0,
        shared_gate=kind in SHARED_GATE,
        activation=_activation(text),
        renormalise=bool(text.get("norm_topk_prob", kind not in RAW_SHARES)),
    )


def _shared(text: Mapping[str, Any], each: int) -> int:
    """Llama 4 has one shared expert that its config does not mention; Gemma 4 adds its experts to a dense MLP."""
    if kind_of(text).startswith("llama4"):
        return each
    if text.get("enable_moe_block"):
        return count(text, "intermediate_size")
    return number(text, "shared_expert_intermediate_size", "shared_intermediate_size") or (
        number(text, "n_shared_experts", "num_shared_experts", "moe_num_shared_experts") * each
    )

"""A decoder of the Llama, Qwen and Mixtral families over packed tokens: plain functions on plain tensors.

RMSNorm (Zhang 2019), rotary positions in halves (Su 2021), grouped-query attention (Ainslie 2023), SwiGLU (Shazeer
2020), dense or in experts; optional bias on q, k, v and norm of q and k. The sequences of a pass lie one after another
in one dimension; only attention knows where one ends, so it is a function handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import pi
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize, rms_norm, scaled_dot_product_attention

from airi_sim.core.errors import BadInput
from airi_sim.models.spec import ModelSpec
from real_backend.experts import Dense, Experts, Router, Shared
from real_backend.linear import Linear, linear
from real_backend.weights import EMBEDDING, HEAD, NORM

Attend = Callable[[int, Tensor], Tensor]
"""(layer, qkv [tokens, heads + 2 kv_heads, head_dim], already rotated) to [tokens, heads * head_dim]."""


class Images(NamedTuple):
    """Image tokens among those of a pass: their `places` (int64 [n]) and what stands there instead of embeddings of
    tokens (`features` [n, hidden], from `vision.image_features`)."""

    places: Tensor
    features: Tensor


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer; q, k, v share one product. `mlp` is a `Dense` or `Experts`."""

    attention_norm: Tensor
    qkv: Linear
    qk_norm: Tensor | None
    out: Linear
    mlp_norm: Tensor
    mlp: Dense | Experts


@dataclass(frozen=True, slots=True)
class Model:
    """The weights of one model on one device, shared by its replicas."""

    spec: ModelSpec
    embedding: Tensor
    layers: tuple[Layer, ...]
    norm: Tensor
    head: Linear
    frequencies: Tensor
    device: torch.device
    dtype: torch.dtype


def build(spec: ModelSpec, tensors: Mapping[str, Tensor], device: str, dtype: torch.dtype) -> Model:
    """Fuse and move the tensors of `weights.draw` or `weights.read`; BadInput for what this decoder cannot run."""
    check(spec)
    placed = {name: tensor.to(device=device, dtype=dtype) for name, tensor in tensors.items()}
    return Model(
        spec=spec,
        embedding=placed[EMBEDDING],
        layers=tuple(_layer(spec, placed, f"model.layers.{index}.") for index in range(spec.layers)),
        norm=placed[NORM],
        head=linear(placed[EMBEDDING] if spec.tied else placed[HEAD]),
        frequencies=_frequencies(spec).to(device),
        device=torch.device(device),
        dtype=dtype,
    )


def _frequencies(spec: ModelSpec) -> Tensor:
    """Radians a position [head_dim / 2]; Llama 3 slows down only those whose wave is long against its training."""
    slow = spec.rope_scaling
    steps = torch.arange(0, spec.head_dim, 2, dtype=torch.float32) / spec.head_dim
    frequencies = 1.0 / spec.rope_theta**steps
    if slow is None or slow.kind == "linear":
        return frequencies / (slow.factor if slow else 1.0)
    turns = slow.original * frequencies / (2.0 * pi)
    kept = ((turns - slow.low) / (slow.high - slow.low)).clamp(0.0, 1.0)
    return kept * frequencies + (1.0 - kept) * frequencies / slow.factor


FAMILIES = ("eurobert", "llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe")
"""Architectures (`model_type`) whose logits were compared with those of transformers."""


def check(spec: ModelSpec) -> None:
    """BadInput for what only the simulator has: other families, latent attention, sliding windows and the like."""
    attention, mlp, stretched = spec.attention, spec.kinds[0].mlp, spec.rope_scaling
    for feature, present in (
        ("latent attention", spec.kv_rank),
        ("a sliding window", spec.window),
        ("layers of unlike kinds", len(spec.kinds) > 1),
        ("an MLP without a gate", not mlp.gated),
        (f"{mlp.activation} in its MLP", mlp.activation not in ("silu", "swish")),
        ("biases in its MLP", mlp.bias or mlp.router_bias),
        ("attention with a gate", attention.gate),
        ("attention with sinks", attention.sinks),
        ("keys normalised over all heads", attention.qk_norm == "whole"),
        ("another number of norms", spec.kinds[0].norm != 2 * spec.hidden),
        ("learned positions", spec.positions or spec.per_layer),
        ("positions stretched in another way than Llama 3's", stretched and stretched.kind not in ("linear", "llama3")),
        (f"the architecture '{spec.family}'", spec.family not in FAMILIES),
    ):
        if present:
            raise BadInput(
                f"the model '{spec.name}' has {feature}, which the torch backend cannot run: take a model of one of "
                f"the families {', '.join(FAMILIES)} with full attention, or backend=sim."
            )


def _layer(spec: ModelSpec, tensors: Mapping[str, Tensor], prefix: str) -> Layer:
    return Layer(
        attention_norm=tensors[f"{prefix}input_layernorm.weight"],
        qkv=_fused(tensors, prefix, "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        qk_norm=_qk_norm(spec, tensors, prefix) if spec.qk_norm else None,
        out=_fused(tensors, prefix, "self_attn.o_proj"),
        mlp_norm=tensors[f"{prefix}post_attention_layernorm.weight"],
        mlp=_experts(spec, tensors, f"{prefix}mlp.") if spec.experts else _dense(tensors, f"{prefix}mlp."),
    )


def _fused(tensors: Mapping[str, Tensor], prefix: str, *names: str) -> Linear:
    biases = [tensors[key] for name in names if (key := f"{prefix}{name}.bias") in tensors]
    weight = torch.cat([tensors[f"{prefix}{name}.weight"] for name in names])
    return linear(weight, torch.cat(biases) if biases else None)


def _dense(tensors: Mapping[str, Tensor], prefix: str) -> Dense:
    return Dense(_fused(tensors, prefix, "gate_proj", "up_proj"), _fused(tensors, prefix, "down_proj"))


def _experts(spec: ModelSpec, tensors: Mapping[str, Tensor], prefix: str) -> Experts:
    mlp, gate = spec.routed, f"{prefix}shared_expert_gate.weight"
    return Experts(
        Router(tensors[f"{prefix}gate.weight"], mlp.active, mlp.renormalise),
        tuple(_dense(tensors, f"{prefix}experts.{index}.") for index in range(mlp.experts)),
        Shared(_dense(tensors, f"{prefix}shared_expert."), tensors[gate]) if mlp.shared_ffn else None,
    )


def _qk_norm(spec: ModelSpec, tensors: Mapping[str, Tensor], prefix: str) -> Tensor:
    """One row a head, so that q and k are normalised in one go."""
    query = tensors[f"{prefix}self_attn.q_norm.weight"].expand(spec.heads, -1)
    key = tensors[f"{prefix}self_attn.k_norm.weight"].expand(spec.kv_heads, -1)
    return torch.cat((query, key))


def hidden_states(
    model: Model, tokens: Tensor, positions: Tensor, attend: Attend, images: Images | None = None
) -> Tensor:
    """[tokens, hidden] after the last norm, for `tokens` at `positions` (both int64 [tokens])."""
    spec, rotated = model.spec, model.spec.heads + model.spec.kv_heads
    x = model.embedding.index_select(0, tokens)
    if images is not None:
        x.index_copy_(0, *images)
    cos, sin = _rotary(model, positions)
    for index, layer in enumerate(model.layers):
        qkv = layer.qkv(_norm(x, layer.attention_norm, spec)).view(len(tokens), -1, spec.head_dim)
        _rotate(qkv[:, :rotated], layer.qk_norm, cos, sin, spec)
        x += layer.out(attend(index, qkv))
        x += layer.mlp(_norm(x, layer.mlp_norm, spec))
    return _norm(x, model.norm, spec)


def _norm(x: Tensor, weight: Tensor, spec: ModelSpec) -> Tensor:
    return rms_norm(x, (x.shape[-1],), weight, spec.rms_eps)


def _rotary(model: Model, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine [tokens, 1, head_dim]; the first half of the sine carries the sign of the rotation."""
    angles = torch.outer(positions, model.frequencies)
    cos, sin = angles.cos().to(model.dtype), angles.sin().to(model.dtype)
    return torch.cat((cos, cos), -1)[:, None], torch.cat((-sin, sin), -1)[:, None]


def _rotate(qk: Tensor, weight: Tensor | None, cos: Tensor, sin: Tensor, spec: ModelSpec) -> None:
    """Normalise (Qwen3) and rotate q and k where they lie, so that k and v stay one slice to be stored."""
    x = qk if weight is None else rms_norm(qk, (spec.head_dim,), None, spec.rms_eps) * weight
    torch.addcmul(x * cos, x.roll(spec.head_dim // 2, -1), sin, out=qk)


def encode(model: Model, tokens: Tensor, lengths: list[int]) -> Tensor:
    """Unit embedding vectors [sequences, hidden]: every token sees its whole sequence, states are averaged."""
    return normalize(pooled(model, tokens, lengths), dim=-1)


def pooled(model: Model, tokens: Tensor, lengths: list[int], causal: bool = False, last: bool = False) -> Tensor:
    """One state a sequence [sequences, hidden], in 32 bits, without a KV cache.

    `tokens` (int64) holds the sequences one after another. Tokens see all of their sequence, or what came before
    (`causal`); their states are averaged, or the one of the `last` token is taken.
    """
    positions = torch.cat([torch.arange(length, device=model.device) for length in lengths])
    spans = tuple(pairwise(torch.tensor([0, *lengths]).cumsum(0).tolist()))
    states = hidden_states(model, tokens, positions, lambda _, qkv: _apart(qkv, model.spec, spans, causal)).float()
    return torch.stack([states[b - 1] if last else states[a:b].mean(0) for a, b in spans])


def _apart(qkv: Tensor, spec: ModelSpec, spans: tuple[tuple[int, int], ...], causal: bool) -> Tensor:
    outputs = []
    for a, b in spans:
        heads = qkv[a:b].transpose(0, 1)[None]
        q, k, v = torch.split(heads, [spec.heads, spec.kv_heads, spec.kv_heads], 1)
        mixed = scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)
        outputs.append(mixed[0].transpose(0, 1).flatten(1))
    return torch.cat(outputs)

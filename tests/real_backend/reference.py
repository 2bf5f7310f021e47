"""An independent, naive decoder: dense attention over the whole sequence, one head and one sequence at a time."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from airi_sim.models.spec import ModelSpec


def logits(spec: ModelSpec, tensors: Mapping[str, Tensor], tokens: list[int]) -> Tensor:
    """[tokens, vocab] by the textbook, from tensors with Hugging Face names."""
    x = tensors["model.embed_tokens.weight"][tokens]
    for layer in range(spec.layers):
        own = {
            name.split(".", 3)[3]: value for name, value in tensors.items() if name.startswith(f"model.layers.{layer}.")
        }
        x = x + _attention(spec, own, _norm(x, own["input_layernorm.weight"], spec.rms_eps))
        h = _norm(x, own["post_attention_layernorm.weight"], spec.rms_eps)
        gate, up = h @ own["mlp.gate_proj.weight"].T, h @ own["mlp.up_proj.weight"].T
        x = x + (gate * torch.sigmoid(gate) * up) @ own["mlp.down_proj.weight"].T
    x = _norm(x, tensors["model.norm.weight"], spec.rms_eps)
    return x @ tensors["model.embed_tokens.weight" if spec.tied else "lm_head.weight"].T


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight


def _project(own: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    bias = own.get(f"self_attn.{name}_proj.bias")
    y = x @ own[f"self_attn.{name}_proj.weight"].T
    return y if bias is None else y + bias


def _attention(spec: ModelSpec, own: Mapping[str, Tensor], x: Tensor) -> Tensor:
    q = _heads(spec, own, "q", _project(own, "q", x))
    k = _heads(spec, own, "k", _project(own, "k", x))
    v = _project(own, "v", x).view(len(x), -1, spec.head_dim)
    group = spec.heads // spec.kv_heads
    future = torch.ones(len(x), len(x)).triu(1).bool()
    outputs = []
    for head in range(spec.heads):
        scores = q[:, head] @ k[:, head // group].T / spec.head_dim**0.5
        outputs.append(scores.masked_fill(future, -torch.inf).softmax(-1) @ v[:, head // group])
    return _project(own, "o", torch.cat(outputs, -1))


def _heads(spec: ModelSpec, own: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    heads = x.view(len(x), -1, spec.head_dim)
    weight = own.get(f"self_attn.{name}_norm.weight")
    return _rope(spec, heads if weight is None else _norm(heads, weight, spec.rms_eps))


def _rope(spec: ModelSpec, heads: Tensor) -> Tensor:
    half = spec.head_dim // 2
    rotated = torch.empty_like(heads)
    for i in range(half):
        angle = torch.arange(len(heads), dtype=torch.float64) / spec.rope_theta ** (2 * i / spec.head_dim)
        cos, sin = angle.cos().float()[:, None], angle.sin().float()[:, None]
        a, b = heads[..., i], heads[..., i + half]
        rotated[..., i] = a * cos - b * sin
        rotated[..., i + half] = b * cos + a * sin
    return rotated

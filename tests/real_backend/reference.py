"""Independent, naive implementations: attention over whole sequences, one head, one token, one expert at a time."""

from __future__ import annotations

from collections.abc import Mapping
from math import pi

import torch
from torch import Tensor

from airi_sim.models.spec import ModelSpec


def logits(spec: ModelSpec, tensors: Mapping[str, Tensor], tokens: list[int]) -> Tensor:
    """[tokens, vocab] by the textbook, from tensors with Hugging Face names."""
    return states(spec, tensors, tokens) @ tensors["model.embed_tokens.weight" if spec.tied else "lm_head.weight"].T


def states(spec: ModelSpec, tensors: Mapping[str, Tensor], tokens: list[int], causal: bool = True) -> Tensor:
    """[tokens, hidden] after the last norm; an encoder is not `causal`."""
    x = tensors["model.embed_tokens.weight"][tokens]
    for layer in range(spec.layers):
        own = {
            name.split(".", 3)[3]: value for name, value in tensors.items() if name.startswith(f"model.layers.{layer}.")
        }
        x = x + _attention(spec, own, _norm(x, own["input_layernorm.weight"], spec.rms_eps), causal)
        h = _norm(x, own["post_attention_layernorm.weight"], spec.rms_eps)
        x = x + (_experts(spec, own, h) if spec.experts else _mlp(own, "mlp", h))
    return _norm(x, tensors["model.norm.weight"], spec.rms_eps)


def _mlp(own: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    gate, up = x @ own[f"{name}.gate_proj.weight"].T, x @ own[f"{name}.up_proj.weight"].T
    return (gate * torch.sigmoid(gate) * up) @ own[f"{name}.down_proj.weight"].T


def _experts(spec: ModelSpec, own: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Token by token: the experts with the largest scores, by their share."""
    rows = []
    for token in x:
        scores = own["mlp.gate.weight"] @ token
        odds = (scores - scores.max()).exp()
        best = sorted(range(spec.experts), key=lambda expert: -float(odds[expert]))[: spec.active_experts]
        among = odds[best].sum() if spec.routed.renormalise else odds.sum()
        row = torch.zeros_like(token)
        for expert in best:
            row += odds[expert] / among * _mlp(own, f"mlp.experts.{expert}", token)
        if spec.shared_ffn:
            opened = 1 / (1 + (-own["mlp.shared_expert_gate.weight"][0] @ token).exp())
            row += opened * _mlp(own, "mlp.shared_expert", token)
        rows.append(row)
    return torch.stack(rows)


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight


def _project(own: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    bias = own.get(f"self_attn.{name}_proj.bias")
    y = x @ own[f"self_attn.{name}_proj.weight"].T
    return y if bias is None else y + bias


def _attention(spec: ModelSpec, own: Mapping[str, Tensor], x: Tensor, causal: bool) -> Tensor:
    q = _heads(spec, own, "q", _project(own, "q", x))
    k = _heads(spec, own, "k", _project(own, "k", x))
    v = _project(own, "v", x).view(len(x), -1, spec.head_dim)
    group = spec.heads // spec.kv_heads
    future = torch.full((len(x), len(x)), causal).triu(1)
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
        angle = torch.arange(len(heads), dtype=torch.float64) * _frequency(spec, i)
        cos, sin = angle.cos().float()[:, None], angle.sin().float()[:, None]
        a, b = heads[..., i], heads[..., i + half]
        rotated[..., i] = a * cos - b * sin
        rotated[..., i + half] = b * cos + a * sin
    return rotated


def _frequency(spec: ModelSpec, i: int) -> float:
    """Radians a position of pair `i`; Llama 3 divides those of long waves by a factor and blends in between."""
    frequency, slow = spec.rope_theta ** (-2 * i / spec.head_dim), spec.rope_scaling
    if slow is None:
        return frequency
    if slow.kind == "linear":
        return frequency / slow.factor
    wave = 2 * pi / frequency
    if wave < slow.original / slow.high:
        return frequency
    if wave > slow.original / slow.low:
        return frequency / slow.factor
    blend = (slow.original / wave - slow.low) / (slow.high - slow.low)
    return (1 - blend) * frequency / slow.factor + blend * frequency


def image_features(spec: ModelSpec, tensors: Mapping[str, Tensor], image: Tensor) -> Tensor:
    """[patches, hidden of the language model] of one image [channels, height, width] of the size of the position table:
    patch by patch, head by head."""
    vision = spec.vision
    assert vision is not None
    own = {name.removeprefix("vision_tower."): value for name, value in tensors.items()}
    kernel, size = own["embeddings.patch_embedding.weight"], vision.patch
    patches = [
        (kernel * image[:, top : top + size, left : left + size]).sum((1, 2, 3))
        for top in range(0, image.shape[1], size)
        for left in range(0, image.shape[2], size)
    ]
    x = torch.stack(patches) + own["embeddings.patch_embedding.bias"] + own["embeddings.position_embedding.weight"]
    for layer in range(vision.layers - vision.skipped):
        name = f"encoder.layers.{layer}"
        x = x + _looks(own, f"{name}.self_attn", _centred(own, f"{name}.layer_norm1", x), vision.heads)
        inner = _affine(own, f"{name}.mlp.fc1", _centred(own, f"{name}.layer_norm2", x))
        x = x + _affine(own, f"{name}.mlp.fc2", inner / 2 * (1 + (0.7978845608 * (inner + 0.044715 * inner**3)).tanh()))
    inner = _affine(own, "multi_modal_projector.linear_1", x)
    return _affine(own, "multi_modal_projector.linear_2", inner / 2 * (1 + torch.erf(inner / 2**0.5)))


def _affine(own: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ own[f"{name}.weight"].T + own[f"{name}.bias"]


def _centred(own: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    centre = x - x.mean(-1, keepdim=True)
    return centre / (centre.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * own[f"{name}.weight"] + own[f"{name}.bias"]


def _looks(own: Mapping[str, Tensor], name: str, x: Tensor, heads: int) -> Tensor:
    q, k, v = (_affine(own, f"{name}.{part}_proj", x).chunk(heads, -1) for part in "qkv")
    mixed = [(q[h] @ k[h].T / q[h].shape[1] ** 0.5).softmax(-1) @ v[h] for h in range(heads)]
    return _affine(own, f"{name}.out_proj", torch.cat(mixed, -1))

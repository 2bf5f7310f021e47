"""What a model is: its shape, read from a Hugging Face config.json, and the parameters and bytes that follow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airi_sim.core.errors import BadInput, unknown
from airi_sim.models.huggingface import fields

BYTES: dict[str, float] = {
    "fp32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "nvfp4": 0.5625,
    "int4": 0.53,
    "mxfp4": 0.53,
}
"""Bytes per weight, scales of the group-quantised formats included."""


def width(precision: str) -> float:
    """Bytes per number of `precision`; BadInput names the known ones."""
    if precision not in BYTES:
        raise unknown("precision", precision, BYTES)
    return BYTES[precision]


def kept_precision(precision: str) -> str:
    """What stays at full width when weights are stored as `precision`: activations, KV, embeddings, the output head."""
    return precision if width(precision) >= 2 else "bf16"


@dataclass(frozen=True)
class ModelSpec:
    """A decoder-only transformer: gated MLP or mixture of experts, grouped-query or latent attention.

    heads, kv_heads, head_dim   attention; `kv_heads` < `heads` is GQA
    ffn                         width of a dense MLP layer
    experts, active_experts, expert_ffn, shared_ffn   routed experts per MoE layer (0: dense model), how many a token
                                uses, the width of one, and the summed width of those every token uses
    dense_layers                leading layers with a dense MLP although the model has experts
    kv_rank, q_rank, rope_dim, nope_dim, v_dim   multi-head latent attention (kv_rank 0: none)
    window                      tokens of a sliding window on `window_layers` layers (0: none)
    max_len                     longest sequence in tokens (max_position_embeddings)
    precision                   how the published weights are stored
    """

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    max_len: int = 4096
    tied: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: bool = False
    rope_theta: float = 10000.0
    rms_eps: float = 1e-5
    experts: int = 0
    active_experts: int = 0
    expert_ffn: int = 0
    shared_ffn: int = 0
    dense_layers: int = 0
    kv_rank: int = 0
    q_rank: int = 0
    rope_dim: int = 0
    nope_dim: int = 0
    v_dim: int = 0
    window: int = 0
    window_layers: int = 0
    precision: str = "bf16"

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | str | Path, name: str = "") -> ModelSpec:
        """From a config.json (its path, its folder, or its content); BadInput says which key or file is missing."""
        content = config if isinstance(config, Mapping) else _read(Path(config))
        try:
            shape = fields(content)
        except (TypeError, ValueError, AttributeError) as error:
            raise BadInput(
                f"the model config '{_name(config, content)}' has a value of the wrong type: {error}."
            ) from None
        return cls(name=name or _name(config, content), **shape)

    @property
    def parameters(self) -> int:
        """All weights, output head included unless it is tied to the embedding."""
        moe = self.layers - self.dense_layers if self.experts else 0
        mlp = (self.layers - moe) * self.mlp_parameters + moe * (self._moe_common + self.experts * self._expert)
        return self.layers * self.attention_parameters + mlp + self._outside_layers

    @property
    def active_parameters(self) -> int:
        """Weights one token passes through, embedding table and head counted whole (as published figures do)."""
        idle = self.experts - self.active_experts
        return self.parameters - (self.layers - self.dense_layers) * idle * self._expert

    @property
    def attention_parameters(self) -> int:
        """Weights of one layer outside its MLP: projections, biases and both norms."""
        return self._latent if self.kv_rank else self._grouped

    @property
    def mlp_parameters(self) -> int:
        """Weights of the MLP of one dense layer."""
        return 3 * self.hidden * self.ffn

    @property
    def embedding_parameters(self) -> int:
        """The token embedding and, unless tied, the output head: what stays at full width in a quantised model."""
        return self.vocab * self.hidden * (1 if self.tied else 2)

    def weight_bytes(self, precision: str = "bf16") -> float:
        """Bytes of all weights; those that quantisation leaves alone are counted at full width."""
        kept = self.embedding_parameters
        return kept * width(kept_precision(precision)) + (self.parameters - kept) * width(precision)

    def kv_bytes_per_token(self, precision: str = "bf16") -> float:
        """KV cache bytes of one token in all layers, unsharded."""
        per_layer = self.kv_rank + self.rope_dim if self.kv_rank else 2 * self.kv_heads * self.head_dim
        return self.layers * per_layer * width(precision)

    def flops_per_token(self, context: int = 0) -> float:
        """Floating-point operations to process one token that attends to `context` tokens, output head included."""
        lookups = 0 if self.tied else self.vocab * self.hidden
        return 2.0 * (self.active_parameters - lookups) + self.layers * self.attention_flops * context

    @property
    def attention_flops(self) -> int:
        """Operations of one layer per (query token, context token) pair: scores and values of all heads."""
        if self.kv_rank:
            return 2 * self.heads * (2 * self.kv_rank + self.rope_dim)
        return 4 * self.heads * self.head_dim

    @property
    def _grouped(self) -> int:
        heads, narrow = self.heads * self.head_dim, self.kv_heads * self.head_dim
        projections = self.hidden * (2 * heads + 2 * narrow)
        biases = self.qkv_bias * (heads + 2 * narrow) + self.out_bias * self.hidden
        return projections + biases + self.qk_norm * 2 * self.head_dim + 2 * self.hidden

    @property
    def _latent(self) -> int:
        query = self.heads * (self.nope_dim + self.rope_dim)
        into_query = self.q_rank * (self.hidden + query + 1) if self.q_rank else self.hidden * query
        down = self.hidden * (self.kv_rank + self.rope_dim) + self.kv_rank
        up = self.kv_rank * self.heads * (self.nope_dim + self.v_dim)
        return into_query + down + up + self.heads * self.v_dim * self.hidden + 2 * self.hidden

    @property
    def _expert(self) -> int:
        return 3 * self.hidden * self.expert_ffn

    @property
    def _moe_common(self) -> int:
        return self.hidden * self.experts + 3 * self.hidden * self.shared_ffn

    @property
    def _outside_layers(self) -> int:
        return self.embedding_parameters + self.hidden


def model(name: str = "", config: Mapping[str, Any] | str | None = None) -> ModelSpec:
    """What `conf/model/*.yaml` instantiates: `config` is the content of a config.json, or a path to one."""
    if config is None:
        raise BadInput("no model architecture was given: set model.config=path/to/config.json (from Hugging Face).")
    return ModelSpec.from_config(config, name=name)


def _read(path: Path) -> Mapping[str, Any]:
    path = path / "config.json" if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise BadInput(f"cannot read the model config '{path}': give the path of a Hugging Face config.json.") from None
    except ValueError as error:
        raise BadInput(f"'{path}' is not a Hugging Face config.json: it is not valid JSON ({error}).") from None
    if not isinstance(content, dict):
        raise BadInput(f"'{path}' is not a Hugging Face config.json: it must hold one JSON object.")
    return content


def _name(config: Mapping[str, Any] | str | Path, content: Mapping[str, Any]) -> str:
    if not isinstance(config, Mapping):
        path = Path(config)
        return path.parent.name if path.name == "config.json" and path.parent.name else path.stem
    return str(content.get("_name_or_path") or content.get("model_type") or "model")

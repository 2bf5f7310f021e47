"""What a model is: its shape, read from a Hugging Face config.json, and the parameters and bytes that follow."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from airi_sim.core.errors import BadInput
from airi_sim.models.families import CHECKED
from airi_sim.models.huggingface import fields
from airi_sim.models.layers import Attention, LayerKind, Mlp
from airi_sim.models.precision import BYTES, NEVER_CONVERTED, Quantisation, kept_precision, width
from airi_sim.models.rope import RopeScaling
from airi_sim.models.vision import Vision

__all__ = ["BYTES", "Attention", "LayerKind", "Mlp", "ModelSpec", "kept_precision", "model", "width"]


@dataclass(frozen=True)
class ModelSpec:
    """A decoder-only transformer, perhaps with a vision tower.

    kinds          its layers by kind: how many are equal, their attention and their MLP
    max_len        longest sequence in tokens, scaling of positions included
    tied           the output head is the embedding table
    precision      how the published weights are stored; `quantisation` which modules of them are not
    vision         the vision tower, if there is one
    positions      rows of a learned table of positions
    per_layer      width of the further embedding that each layer adds (Gemma 4's small models; 0: none)
    family         model_type of its config

    `heads`, `kv_heads`, `window` and the like are those of the most common kind of layer that has them: enough where
    all layers are equal. What costs time or memory sums over `kinds`.
    """

    name: str
    hidden: int
    vocab: int
    kinds: tuple[LayerKind, ...]
    max_len: int = 4096
    tied: bool = False
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    rms_eps: float = 1e-5
    precision: str = "bf16"
    quantisation: Quantisation | None = None
    vision: Vision | None = None
    positions: int = 0
    per_layer: int = 0
    family: str = "llama"

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | str | Path, name: str = "") -> ModelSpec:
        """From a config.json (its path, its folder, or its content); BadInput says which key or file is missing."""
        content = config if isinstance(config, Mapping) else _read(Path(config))
        try:
            shape = fields(content)
        except (TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
            raise BadInput(
                f"the model config '{_name(config, content)}' has a value of the wrong type: {error}."
            ) from None
        return cls(name=name or _name(config, content), **shape)

    @cached_property
    def modules(self) -> dict[str, int]:
        """Weights by module: attention, mlp, experts, shared, router, norm, embedding, head, vision."""
        total: Counter[str] = Counter()
        for kind in self.kinds:
            total.update(kind.weights(self.hidden))
        total["norm"] += self.hidden
        total["embedding"] = (self.vocab + self.positions) * self.hidden + self.layers * self.per_layer * self.vocab
        total["mlp"] += 3 * self.layers * self.per_layer * self.hidden
        total["head"] = 0 if self.tied else self.vocab * self.hidden
        total["vision"] = self.vision.parameters if self.vision else 0
        return {module: numbers for module, numbers in total.items() if numbers}

    @property
    def parameters(self) -> int:
        """All weights: output head (unless tied to the embedding) and vision tower included, layers that only predict
        further tokens (DeepSeek's MTP) not."""
        return sum(self.modules.values())

    @property
    def active_parameters(self) -> int:
        """Weights one text token passes through, embedding table and head counted whole (as most published figures do;
        OpenAI's leave out the embedding table)."""
        idle = sum(kind.idle(self.hidden) for kind in self.kinds)
        return self.parameters - self.modules.get("vision", 0) - idle

    @property
    def embedding_parameters(self) -> int:
        """The token embedding and, unless tied, the output head."""
        return self.modules["embedding"] + self.modules.get("head", 0)

    def stored(self, module: str, precision: str = "bf16") -> float:
        """Bytes per weight of `module` in a model run in `precision`: its own published quantisation knows its scales
        and what it left alone; norms, routers, embeddings, head and vision tower are never converted."""
        published = self.quantisation if self.quantisation and self.quantisation.precision == precision else None
        if module in NEVER_CONVERTED or (published and module in published.kept):
            return width(kept_precision(precision))
        return published.width if published else width(precision)

    def weight_bytes(self, precision: str = "bf16") -> float:
        """Bytes of all weights; those that quantisation leaves alone are counted at full width."""
        return sum(numbers * self.stored(module, precision) for module, numbers in self.modules.items())

    def kv_bytes_per_token(self, precision: str = "bf16") -> float:
        """KV cache bytes of one token in all layers, unsharded, as long as no window is full."""
        return sum(kind.count * kind.attention.cached for kind in self.kinds) * width(precision)

    def kv_bytes(self, context: int, precision: str = "bf16") -> float:
        """KV cache bytes that a sequence of `context` tokens needs, unsharded: layers with a window keep no more than
        that, linear ones a state of constant size (always in 32 bits)."""
        tokens = sum(k.count * k.attention.cached * min(context, k.attention.window or context) for k in self.kinds)
        return tokens * width(precision) + 4.0 * sum(kind.count * kind.attention.state for kind in self.kinds)

    def flops_per_token(self, context: int = 0) -> float:
        """Floating-point operations to process one token that attends to `context` tokens, output head included."""
        table = self.modules["embedding"] - self.tied * self.vocab * self.hidden
        attention = sum(k.count * k.attention.pair_flops * k.attention.seen(context) for k in self.kinds)
        state = sum(kind.count * kind.attention.state_flops for kind in self.kinds)
        return 2.0 * (self.active_parameters - table) + attention + state

    def notes(self, precision: str = "") -> tuple[str, ...]:
        """Sentences on what one should doubt about it, run in `precision` (empty: as published)."""
        found = []
        if self.family not in CHECKED:
            found.append(
                f"the architecture '{self.family}' of '{self.name}' is not known here and was read as a Llama."
            )
        if self.quantisation and precision not in ("", self.precision):
            found.append(
                f"the published weights of '{self.name}' are {self.precision}, but it runs in {precision}: "
                f"precision={self.precision} takes them as they are."
            )
        return tuple(found)

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return sum(kind.count for kind in self.kinds)

    @property
    def attention(self) -> Attention:
        """Attention of the most common kind of layer with a KV cache."""
        cached = [kind for kind in self.kinds if kind.attention.cached] or self.kinds
        return max(cached, key=lambda kind: kind.count).attention

    @property
    def routed(self) -> Mlp:
        """The MLP of the layers with experts, or an empty one."""
        return next((kind.mlp for kind in self.kinds if kind.mlp.experts), Mlp())

    @property
    def heads(self) -> int:
        """Query heads."""
        return self.attention.heads

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.attention.kv_heads

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.attention.head_dim

    @property
    def qkv_bias(self) -> bool:
        """Queries, keys and values have biases."""
        return self.attention.qkv_bias

    @property
    def out_bias(self) -> bool:
        """The output projection of attention has a bias."""
        return self.attention.out_bias

    @property
    def qk_norm(self) -> bool:
        """Queries and keys are normalised by head."""
        return self.attention.qk_norm == "head"

    @property
    def ffn(self) -> int:
        """Width of a dense MLP; 0 if there is none."""
        return max(kind.mlp.ffn for kind in self.kinds)

    @property
    def experts(self) -> int:
        """Routed experts of a layer that has them; 0 in a dense model."""
        return self.routed.experts

    @property
    def active_experts(self) -> int:
        """Routed experts that a token uses."""
        return self.routed.active

    @property
    def expert_ffn(self) -> int:
        """Width of one routed expert."""
        return self.routed.expert_ffn

    @property
    def shared_ffn(self) -> int:
        """Summed width of the experts that every token uses."""
        return self.routed.shared_ffn

    @property
    def dense_layers(self) -> int:
        """Layers with a dense MLP in a model with experts."""
        return sum(kind.count for kind in self.kinds if not kind.mlp.experts) if self.experts else 0

    @property
    def kv_rank(self) -> int:
        """Rank of the compressed KV of latent attention (0: not latent)."""
        return self.attention.kv_rank

    @property
    def q_rank(self) -> int:
        """Rank of the compressed query of latent attention."""
        return self.attention.q_rank

    @property
    def rope_dim(self) -> int:
        """Width of a latent key with positions."""
        return self.attention.rope_dim

    @property
    def nope_dim(self) -> int:
        """Width of a latent key without positions."""
        return self.attention.nope_dim

    @property
    def v_dim(self) -> int:
        """Width of a latent value head."""
        return self.attention.v_dim

    @property
    def window(self) -> int:
        """Shortest window of any layer (0: all attend to everything)."""
        return min((kind.attention.window for kind in self.kinds if kind.attention.window), default=0)

    @property
    def window_layers(self) -> int:
        """Layers with a window."""
        return sum(kind.count for kind in self.kinds if kind.attention.window)


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

"""The vision tower of a multimodal model: what it weighs, and what an image costs in operations and in tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airi_sim.models.config import number
from airi_sim.models.families import GATED_TOWERS


@dataclass(frozen=True)
class Vision:
    """A vision transformer before the language model.

    layers, hidden, heads, ffn   of the transformer; `gated` its MLP has three matrices
    patch, frames, channels      pixels a side of a patch, video frames in one, colours
    merge                        patches a side that become one token of the language model
    fixed_tokens                 tokens of every image whatever its size (0: by its size)
    projector                    weights between the tower and the language model
    positions                    rows of the learned position table
    skipped                      last layers whose output the language model does not read
    family, activation           model_type of the tower; what its MLPs have in between ("": what its family has)
    epsilon                      of its norms (0: what its family has)
    levels, cut                  layers whose output LLaVA reads side by side; whether it leaves the first token out
    projector_activation         between LLaVA's two projections ("": gelu)
    """

    layers: int
    hidden: int
    heads: int
    ffn: int
    patch: int = 16
    frames: int = 1
    channels: int = 3
    merge: int = 1
    fixed_tokens: int = 0
    gated: bool = False
    projector: int = 0
    positions: int = 0
    skipped: int = 0
    family: str = ""
    activation: str = ""
    epsilon: float = 0.0
    levels: int = 1
    cut: bool = False
    projector_activation: str = ""

    @property
    def parameters(self) -> int:
        """Weights of tower and projector; biases and norms, below 0.5 % of it, are left out."""
        return self.layers * self._layer + self._embedding + self.positions * self.hidden + self.projector

    @property
    def _embedding(self) -> int:
        return self.channels * self.frames * self.patch**2 * self.hidden

    @property
    def _layer(self) -> int:
        return 4 * self.hidden**2 + (3 if self.gated else 2) * self.hidden * self.ffn

    def patches(self, width: int, height: int) -> int:
        """Patches of an image of so many pixels, sides rounded to whole tokens."""
        side = self.patch * self.merge
        return max(1, round(width / side)) * max(1, round(height / side)) * self.merge**2

    def tokens(self, width: int, height: int) -> int:
        """Tokens of the language model that an image of so many pixels becomes."""
        return self.fixed_tokens or self.patches(width, height) // self.merge**2

    def flops(self, patches: int) -> float:
        """Operations for one image: products of every patch, attention of each to all, the projector."""
        layers = self.layers - self.skipped
        products = 2.0 * patches * (layers * self._layer + self._embedding)
        attention = 4.0 * layers * self.hidden * patches**2
        return products + attention + 2.0 * self.projector * patches / self.merge**2


def vision(config: Mapping[str, Any], hidden: int) -> Vision | None:
    """From the `vision_config` of a config.json, before a language model `hidden` wide; None if there is no tower."""
    tower = config.get("vision_config")
    if not tower:
        return None
    width = number(tower, "hidden_size", "embed_dim")
    layers = number(tower, "num_hidden_layers", "depth")
    if not width or not layers:
        return None
    kind = str(tower.get("model_type", ""))
    llava = str(config.get("model_type", "")) == "llava"
    merge, read = _merge(tower), config.get("vision_feature_layer", -2)
    return Vision(
        layers=layers,
        hidden=width,
        heads=number(tower, "num_attention_heads", "num_heads"),
        ffn=number(tower, "intermediate_size") or int(4 * width),
        patch=number(tower, "patch_size") or 14,
        frames=number(tower, "temporal_patch_size") or 1,
        channels=number(tower, "in_channels", "num_channels", "in_chans") or 3,
        merge=merge,
        fixed_tokens=number(config, "mm_tokens_per_image", "vision_soft_tokens_per_image"),
        gated=kind in GATED_TOWERS,
        projector=_projector(tower, width, hidden, merge) + llava * hidden**2,
        positions=_positions(tower),
        skipped=_skipped(read, layers) if llava else 0,
        family=kind,
        activation=str(tower.get("hidden_act") or ""),
        epsilon=float(tower.get("layer_norm_eps") or 0.0),
        levels=len(read) if llava and isinstance(read, list) else 1,
        cut=llava and config.get("vision_feature_select_strategy", "default") != "full",
        projector_activation=str(config.get("projector_hidden_act") or ""),
    )


def _skipped(chosen: Any, layers: int) -> int:
    """LLaVA reads the states after one layer, counted from either end, or after the last of several."""
    furthest = max(index % (layers + 1) for index in (chosen if isinstance(chosen, list) else [int(chosen)]))
    return layers - furthest


def _merge(tower: Mapping[str, Any]) -> int:
    shuffle = float(tower.get("pixel_shuffle_ratio") or 0)
    return round(1 / shuffle) if shuffle else number(tower, "spatial_merge_size", "pooling_kernel_size") or 1


def _projector(tower: Mapping[str, Any], width: int, hidden: int, merge: int) -> int:
    """Qwen concatenates the patches of a token and has two layers (again for each deep-stack level); others project
    once (LLaVA a second time, from the width of the language model to itself)."""
    if "spatial_merge_size" in tower and str(tower.get("model_type", "")).startswith("qwen"):
        wide = width * merge**2
        return (1 + len(tower.get("deepstack_visual_indexes") or ())) * wide * (wide + hidden)
    return (number(tower, "vision_output_dim") or width) * hidden


def _positions(tower: Mapping[str, Any]) -> int:
    if tower.get("position_embedding_size"):
        return 2 * int(tower["position_embedding_size"])
    if tower.get("num_position_embeddings"):
        return int(tower["num_position_embeddings"])
    size = tower.get("image_size")
    return (size // number(tower, "patch_size")) ** 2 if isinstance(size, int) and tower.get("patch_size") else 0

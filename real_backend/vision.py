"""A vision transformer before a language model: SigLIP's tower (Zhai 2023) and LLaVA's projector (Liu 2023).

Patches become tokens by one product, positions are learned, blocks normalise first and attend both ways. The states
after the layer that the config names are projected to the width of the language model, where they stand in a prompt
instead of embeddings (`model.Images`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import gelu, interpolate, layer_norm, scaled_dot_product_attention, unfold

from airi_sim.core.errors import BadInput
from airi_sim.models.spec import ModelSpec
from airi_sim.models.vision import Vision
from real_backend.linear import Linear, linear
from real_backend.weights import fill, pick

FAMILIES = ("siglip_vision_model",)
EPSILON = 1e-6
TOWER, PROJECTOR = "vision_tower.", "multi_modal_projector."


@dataclass(frozen=True, slots=True)
class Norm:
    """Layer norm (Ba 2016) with weight and bias [width]."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.weight.shape, self.weight, self.bias, EPSILON)


@dataclass(frozen=True, slots=True)
class Block:
    """One layer of the tower; q, k, v share one product."""

    attention_norm: Norm
    qkv: Linear
    out: Linear
    mlp_norm: Norm
    up: Linear
    down: Linear


@dataclass(frozen=True, slots=True)
class Tower:
    """The weights of a tower and its projector on one device; `positions` is [patches, width]."""

    vision: Vision
    patch: Linear
    positions: Tensor
    blocks: tuple[Block, ...]
    project: tuple[Linear, Linear]


def check(spec: ModelSpec) -> Vision:
    """The tower of a model; BadInput if it has none, or one that only the simulator has."""
    vision = spec.vision
    if vision is None:
        raise BadInput(f"the model '{spec.name}' has no vision tower: take one that has, such as model=tiny-vlm.")
    for feature, present in (
        (f"of the family '{vision.family}'", vision.family not in FAMILIES),
        (f"with {vision.activation} in its MLPs", vision.activation not in ("", "gelu_pytorch_tanh")),
        ("merging patches", vision.merge != 1 or vision.fixed_tokens),
        ("for video", vision.frames != 1),
        (
            "without a table of positions for square images",
            isqrt(vision.positions) ** 2 != vision.positions or not vision.positions,
        ),
        (f"with {vision.epsilon:g} in its norms", vision.epsilon not in (0.0, EPSILON)),
        ("of which several layers are read", vision.levels != 1),
        ("whose first token is left out (vision_feature_select_strategy other than full)", vision.cut),
        ("with a projector other than LLaVA's", vision.projector != spec.hidden * (vision.hidden + spec.hidden)),
        (f"with {vision.projector_activation} in its projector", vision.projector_activation not in ("", "gelu")),
        (f"of {vision.heads} heads in a width of {vision.hidden}", vision.hidden % max(vision.heads, 1)),
    ):
        if present:
            raise BadInput(
                f"the model '{spec.name}' has a vision tower {feature}, which the torch backend cannot run: take a "
                "LLaVA model with a SigLIP tower, such as model=tiny-vlm, or backend=sim."
            )
    return vision


def shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of tower and projector; layers that nobody reads are left out."""
    vision = check(spec)
    width, patch = vision.hidden, (vision.hidden, vision.channels, vision.patch, vision.patch)
    found = _affine(f"{TOWER}embeddings.patch_embedding", patch)
    found[f"{TOWER}embeddings.position_embedding.weight"] = (vision.positions, width)
    for layer in range(vision.layers - vision.skipped):
        found |= _block(f"{TOWER}encoder.layers.{layer}.", vision)
    found |= _affine(f"{PROJECTOR}linear_1", (spec.hidden, width))
    return found | _affine(f"{PROJECTOR}linear_2", (spec.hidden, spec.hidden))


def _affine(name: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _block(prefix: str, vision: Vision) -> dict[str, tuple[int, ...]]:
    width = vision.hidden
    found = _affine(f"{prefix}layer_norm1", (width,)) | _affine(f"{prefix}layer_norm2", (width,))
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        found |= _affine(f"{prefix}self_attn.{name}", (width, width))
    found |= _affine(f"{prefix}mlp.fc1", (vision.ffn, width))
    return found | _affine(f"{prefix}mlp.fc2", (width, vision.ffn))


def draw(spec: ModelSpec, seed: int = 0, device: str = "cpu", dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Random weights of tower and projector, the same for the same seed and device."""
    return fill(shapes(spec), seed, device, dtype)


def read(spec: ModelSpec, path: str | Path) -> dict[str, Tensor]:
    """The tensors of tower and projector from the files of the whole model; BadInput if one is missing."""
    return pick(shapes(spec), path, spec.name)


def build(spec: ModelSpec, tensors: Mapping[str, Tensor], device: str, dtype: torch.dtype) -> Tower:
    """Fuse and move the tensors of `draw` or `read`."""
    vision = check(spec)
    placed = {name: tensor.to(device=device, dtype=dtype) for name, tensor in tensors.items()}
    embeddings = f"{TOWER}embeddings."
    patch = placed[f"{embeddings}patch_embedding.weight"].flatten(1)
    return Tower(
        vision=vision,
        patch=linear(patch, placed[f"{embeddings}patch_embedding.bias"]),
        positions=placed[f"{embeddings}position_embedding.weight"],
        blocks=tuple(
            _layer(placed, f"{TOWER}encoder.layers.{layer}.") for layer in range(vision.layers - vision.skipped)
        ),
        project=(_fused(placed, f"{PROJECTOR}linear_1"), _fused(placed, f"{PROJECTOR}linear_2")),
    )


def _layer(tensors: Mapping[str, Tensor], prefix: str) -> Block:
    def norm(name: str) -> Norm:
        return Norm(tensors[f"{prefix}{name}.weight"], tensors[f"{prefix}{name}.bias"])

    attention = f"{prefix}self_attn."
    return Block(
        attention_norm=norm("layer_norm1"),
        qkv=_fused(tensors, f"{attention}q_proj", f"{attention}k_proj", f"{attention}v_proj"),
        out=_fused(tensors, f"{attention}out_proj"),
        mlp_norm=norm("layer_norm2"),
        up=_fused(tensors, f"{prefix}mlp.fc1"),
        down=_fused(tensors, f"{prefix}mlp.fc2"),
    )


def _fused(tensors: Mapping[str, Tensor], *names: str) -> Linear:
    weight = torch.cat([tensors[f"{name}.weight"] for name in names])
    return linear(weight, torch.cat([tensors[f"{name}.bias"] for name in names]))


def image_features(tower: Tower, pixels: Tensor) -> Tensor:
    """Image tokens [images, tokens, hidden of the language model] of pixels [images, channels, height, width].

    The images of a call have one size, whole patches on each side (else BadInput); the token of a patch is at
    row * patches a row + column. Positions are interpolated where the table is for another size.
    """
    rows, columns = _grid(tower.vision, pixels)
    patches = unfold(pixels.to(tower.positions), tower.vision.patch, stride=tower.vision.patch)
    x = tower.patch(patches.transpose(1, 2).flatten(0, 1)).view(len(pixels), rows * columns, -1)
    x = (x + _positions(tower, rows, columns)).flatten(0, 1)
    for block in tower.blocks:
        x += block.out(_attend(tower.vision, block.qkv(block.attention_norm(x)), len(pixels)))
        x += block.down(gelu(block.up(block.mlp_norm(x)), approximate="tanh"))
    into, across = tower.project
    return across(gelu(into(x))).view(len(pixels), rows * columns, -1)


def _grid(vision: Vision, pixels: Tensor) -> tuple[int, int]:
    """Patches a column and a row of the images."""
    channels, height, width = pixels.shape[1:]
    if channels != vision.channels or height % vision.patch or width % vision.patch or not height * width:
        raise BadInput(
            f"the vision tower takes images of {vision.channels} channels whose sides are multiples of {vision.patch} "
            f"pixels, not {channels} x {height} x {width}: scale them first."
        )
    return height // vision.patch, width // vision.patch


def _positions(tower: Tower, rows: int, columns: int) -> Tensor:
    """[rows * columns, width], by cubic interpolation of the square table."""
    side = isqrt(len(tower.positions))
    if rows == columns == side:
        return tower.positions
    square = tower.positions.view(1, side, side, -1).permute(0, 3, 1, 2)
    return interpolate(square, size=(rows, columns), mode="bicubic").flatten(2)[0].T


def _attend(vision: Vision, qkv: Tensor, images: int) -> Tensor:
    """Every patch of an image to all of it; qkv [patches of all, 3 * width] to [patches of all, width]."""
    heads = qkv.view(images, -1, 3, vision.heads, vision.hidden // vision.heads)
    q, k, v = heads.permute(2, 0, 3, 1, 4)
    return scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2).flatten(0, 1)

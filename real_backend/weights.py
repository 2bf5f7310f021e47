"""Weights by their Hugging Face names: drawn from a seed, or read from safetensors files without a dependency."""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from airi_sim.core.errors import BadInput
from airi_sim.models.spec import ModelSpec

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
STANDARD_DEVIATION = 0.05  # wide enough that the best and second best token never tie in fp32
EMBEDDING = "model.embed_tokens.weight"
NORM = "model.norm.weight"
HEAD = "lm_head.weight"
Shapes = Mapping[str, tuple[int, ...]]

SPELLINGS = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^(model\.language_model|language_model\.model)\.", "model."),
        (r"^language_model\.lm_head\.", "lm_head."),
        (r"^model\.(vision_tower|multi_modal_projector)\.", r"\1."),
        (r"^vision_tower\.vision_model\.", "vision_tower."),
        (r"\.block_sparse_moe\.", ".mlp."),
        (r"\.experts\.(\d+)\.w1\.", r".experts.\1.gate_proj."),
        (r"\.experts\.(\d+)\.w2\.", r".experts.\1.down_proj."),
        (r"\.experts\.(\d+)\.w3\.", r".experts.\1.up_proj."),
    )
)
"""Other names of tensors, and ours: Mixtral's experts, the language model and the tower of a multimodal model."""


def shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a grouped-query decoder, as Llama and the Qwen families name them."""
    found = {EMBEDDING: (spec.vocab, spec.hidden), NORM: (spec.hidden,)}
    if not spec.tied:
        found[HEAD] = (spec.vocab, spec.hidden)
    for layer in range(spec.layers):
        found |= {f"model.layers.{layer}.{name}": shape for name, shape in _layer(spec).items()}
    return found


def _layer(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    wide, narrow = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
    found: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (spec.hidden,),
        "self_attn.q_proj.weight": (wide, spec.hidden),
        "self_attn.k_proj.weight": (narrow, spec.hidden),
        "self_attn.v_proj.weight": (narrow, spec.hidden),
        "self_attn.o_proj.weight": (spec.hidden, wide),
        "post_attention_layernorm.weight": (spec.hidden,),
    }
    if spec.qkv_bias:
        found |= {"self_attn.q_proj.bias": (wide,), "self_attn.k_proj.bias": (narrow,)}
        found |= {"self_attn.v_proj.bias": (narrow,)}
    if spec.out_bias:
        found["self_attn.o_proj.bias"] = (spec.hidden,)
    if spec.qk_norm:
        found |= {"self_attn.q_norm.weight": (spec.head_dim,), "self_attn.k_norm.weight": (spec.head_dim,)}
    return found | (_experts(spec) if spec.experts else _mlp(spec, "mlp.", spec.ffn))


def _mlp(spec: ModelSpec, prefix: str, width: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{prefix}gate_proj.weight": (width, spec.hidden),
        f"{prefix}up_proj.weight": (width, spec.hidden),
        f"{prefix}down_proj.weight": (spec.hidden, width),
    }


def _experts(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"mlp.gate.weight": (spec.experts, spec.hidden)}
    for index in range(spec.experts):
        found |= _mlp(spec, f"mlp.experts.{index}.", spec.expert_ffn)
    if spec.shared_ffn:
        found |= _mlp(spec, "mlp.shared_expert.", spec.shared_ffn) | {"mlp.shared_expert_gate.weight": (1, spec.hidden)}
    return found


def draw(spec: ModelSpec, seed: int = 0, device: str = "cpu", dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Random weights of a decoder, the same for the same seed and device."""
    return fill(shapes(spec), seed, device, dtype)


def fill(wanted: Shapes, seed: int, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Tensors of these shapes from a seed: normal with deviation 0.05, weights of norms around one."""
    generator = torch.Generator(device).manual_seed(seed)
    return {name: _normal(name, shape, generator).to(dtype) for name, shape in wanted.items()}


def _normal(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    values = torch.empty(shape, device=generator.device).normal_(0.0, STANDARD_DEVIATION, generator=generator)
    return values.add_(1.0) if "norm" in name and name.endswith(".weight") else values


def read(spec: ModelSpec, path: str | Path) -> dict[str, Tensor]:
    """The tensors of the decoder `spec` from a .safetensors file or a folder of them, mapped and not copied.

    BadInput if a tensor is missing or has another shape.
    """
    return pick(shapes(spec), path, spec.name)


def pick(wanted: Shapes, path: str | Path, model: str) -> dict[str, Tensor]:
    """The `wanted` tensors of `model` (its name) by any of their names, the experts of a layer also from one tensor."""
    tensors: dict[str, Tensor] = {}
    for file in _files(Path(path)):
        for name, tensor in read_file(file).items():
            tensors |= _canonical(name, tensor)
    _check(tensors, wanted, model, path)
    return {name: tensors[name] for name in wanted}


def _canonical(name: str, tensor: Tensor) -> dict[str, Tensor]:
    for pattern, ours in SPELLINGS:
        name = pattern.sub(ours, name)
    stem, _, last = name.rpartition(".experts.")
    if last not in ("gate_up_proj", "down_proj"):
        return {name: tensor}
    return dict(_apart(f"{stem}.experts.", last, tensor))


def _apart(prefix: str, name: str, stacked: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Views of the weights of single experts in [experts, out, in]."""
    for index, weight in enumerate(stacked):
        if name == "down_proj":
            yield f"{prefix}{index}.down_proj.weight", weight
        else:
            gate, up = weight.chunk(2)
            yield f"{prefix}{index}.gate_proj.weight", gate
            yield f"{prefix}{index}.up_proj.weight", up


def _files(path: Path) -> list[Path]:
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise BadInput(f"no weights at '{path}': give a .safetensors file, or a folder that holds some.")
    return files


def _check(tensors: Mapping[str, Tensor], wanted: Shapes, model: str, path: str | Path) -> None:
    for name, shape in wanted.items():
        if name not in tensors:
            raise BadInput(f"the weights at '{path}' have no tensor '{name}': they belong to another model.")
        if tuple(tensors[name].shape) != shape:
            raise BadInput(
                f"the tensor '{name}' at '{path}' has shape {tuple(tensors[name].shape)} where the config of "
                f"'{model}' says {shape}: give the weights of this model."
            )


def read_file(path: Path) -> dict[str, Tensor]:
    """All tensors of one safetensors file: 8 bytes of header length, a JSON header, the data."""
    try:
        with path.open("rb") as file:
            # copy-on-write, because torch wants writable memory; nothing here writes to it
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        start = 8 + int.from_bytes(data[:8], "little")
        header = dict(json.loads(data[8:start]))
    except (TypeError, ValueError):
        raise BadInput(f"'{path}' is not a safetensors file: it does not begin with a header in JSON.") from None
    header.pop("__metadata__", None)
    if start + max((entry["data_offsets"][1] for entry in header.values()), default=0) > len(data):
        raise BadInput(f"'{path}' ends before its last tensor does: it was not copied whole, so do it again.")
    return {name: _tensor(data, start, entry, name) for name, entry in header.items()}


def _tensor(data: mmap.mmap, start: int, entry: Mapping[str, list[int]], name: str) -> Tensor:
    kind = str(entry["dtype"])
    if kind not in DTYPES:
        raise BadInput(f"the tensor '{name}' is stored as {kind}: convert the weights to one of {', '.join(DTYPES)}.")
    count, offset = prod(entry["shape"]), start + entry["data_offsets"][0]
    return torch.frombuffer(data, dtype=DTYPES[kind], count=count, offset=offset).view(entry["shape"])

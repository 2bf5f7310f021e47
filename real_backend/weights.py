"""Weights by their Hugging Face names: drawn from a seed, or read from safetensors files without a dependency."""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
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
    """Random weights, the same for the same seed and device: normal with deviation 0.05, norms around one."""
    generator = torch.Generator(device).manual_seed(seed)
    return {name: _normal(name, shape, generator).to(dtype) for name, shape in shapes(spec).items()}


def _normal(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    values = torch.empty(shape, device=generator.device).normal_(0.0, STANDARD_DEVIATION, generator=generator)
    return values.add_(1.0) if "norm" in name else values


def read(spec: ModelSpec, path: str | Path) -> dict[str, Tensor]:
    """The tensors of `spec` from a .safetensors file or a folder of them, mapped and not copied.

    BadInput if a tensor is missing or has another shape.
    """
    tensors: dict[str, Tensor] = {}
    for file in _files(Path(path)):
        tensors |= read_file(file)
    _check(tensors, spec, path)
    return {name: tensors[name] for name in shapes(spec)}


def _files(path: Path) -> list[Path]:
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise BadInput(f"no weights at '{path}': give a .safetensors file, or a folder that holds some.")
    return files


def _check(tensors: Mapping[str, Tensor], spec: ModelSpec, path: str | Path) -> None:
    for name, shape in shapes(spec).items():
        if name not in tensors:
            raise BadInput(f"the weights at '{path}' have no tensor '{name}': they belong to another model.")
        if tuple(tensors[name].shape) != shape:
            raise BadInput(
                f"the tensor '{name}' at '{path}' has shape {tuple(tensors[name].shape)} where the config of "
                f"'{spec.name}' says {shape}: give the weights of this model."
            )


def read_file(path: Path) -> dict[str, Tensor]:
    """All tensors of one safetensors file: 8 bytes of header length, a JSON header, the data."""
    with path.open("rb") as file:
        # copy-on-write, because torch wants writable memory; nothing here writes to it
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    try:
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:start])
    except ValueError:
        raise BadInput(f"'{path}' is not a safetensors file: its header is not valid JSON.") from None
    header.pop("__metadata__", None)
    return {name: _tensor(data, start, entry, name) for name, entry in header.items()}


def _tensor(data: mmap.mmap, start: int, entry: Mapping[str, list[int]], name: str) -> Tensor:
    kind = str(entry["dtype"])
    if kind not in DTYPES:
        raise BadInput(f"the tensor '{name}' is stored as {kind}: convert the weights to one of {', '.join(DTYPES)}.")
    count, offset = prod(entry["shape"]), start + entry["data_offsets"][0]
    return torch.frombuffer(data, dtype=DTYPES[kind], count=count, offset=offset).view(entry["shape"])

"""Attention by kernels that take sequences of unlike length in one call: torch.nn.attention.varlen, on CUDA only.

Its interface changed with every release, so it is asked what it takes and tried once before it is chosen. Written to
its documentation and tested against a stand-in; no CUDA device has run it yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from airi_sim.models.spec import ModelSpec
from real_backend.batch import Batch
from real_backend.kv import PagedKV

MODULE = "torch.nn.attention.varlen"
WANTED = ("window_size", "enable_gqa")
WANTED_PAGED = (*WANTED, "seqused_k", "block_table")
Attempt = Callable[[torch.device, torch.dtype], bool]
CAUSAL = (-1, 0)  # as many earlier keys as there are, no later one; the last query goes with the last key


@dataclass(frozen=True, slots=True)
class GatheredAttention:
    """All sequences of a pass in one call, over keys and values gathered without padding."""

    spec: ModelSpec
    cache: PagedKV
    batch: Batch
    features: ClassVar[str] = "ragged"

    def __call__(self, layer: int, qkv: Tensor) -> Tensor:
        ragged, heads = self.batch.ragged, self.spec.heads
        self.cache.write(layer, self.batch.slots, qkv[:, heads:])
        k, v = self.cache.tokens(layer, ragged.slots).chunk(2, 1)
        ends, longest = (ragged.query_ends, ragged.key_ends), (ragged.longest_query, ragged.longest_key)
        mixed = kernel()(qkv[:, :heads], k, v, *ends, *longest, window_size=CAUSAL, enable_gqa=True)
        return mixed.flatten(1)

    @staticmethod
    def problem(device: torch.device, dtype: torch.dtype, /) -> str:
        return problem(device, dtype, WANTED, _try_gathered)


@dataclass(frozen=True, slots=True)
class TableAttention:
    """All sequences of a pass in one call that reads keys and values where they lie."""

    spec: ModelSpec
    cache: PagedKV
    batch: Batch
    features: ClassVar[str] = "ragged"

    def __call__(self, layer: int, qkv: Tensor) -> Tensor:
        ragged, heads = self.batch.ragged, self.spec.heads
        self.cache.write(layer, self.batch.slots, qkv[:, heads:])
        k, v = self.cache.blocks(layer).chunk(2, 2)
        mixed = kernel()(
            qkv[:, :heads], k, v, ragged.query_ends, None, ragged.longest_query, ragged.longest_key,
            window_size=CAUSAL, enable_gqa=True, seqused_k=ragged.keys, block_table=ragged.table,
        )  # fmt: skip
        return mixed.flatten(1)

    @staticmethod
    def problem(device: torch.device, dtype: torch.dtype, /) -> str:
        return problem(device, dtype, WANTED_PAGED, _try_table)


def kernel() -> Callable[..., Tensor]:
    """The function of this torch; AttributeError or ImportError if it has none."""
    return import_module(MODULE).varlen_attn


def problem(device: torch.device, dtype: torch.dtype, wanted: tuple[str, ...], attempt: Attempt) -> str:
    """Why the kernel cannot be used; empty if it takes the `wanted` arguments and `attempt` gave the right result."""
    if device.type != "cuda":
        return f"its kernels need a CUDA device, and this is '{device.type}'"
    try:
        missing = set(wanted) - set(signature(kernel()).parameters)
    except (AttributeError, ImportError):
        return f"torch {torch.__version__} has no {MODULE}"
    if missing:
        return f"{MODULE} of torch {torch.__version__} takes no {' and no '.join(sorted(missing))}"
    try:
        return "" if attempt(device, dtype) else "a trial gave another result than dense attention"
    except Exception as error:  # whatever a kernel raises, it cannot be used
        return f"a trial in {str(dtype).removeprefix('torch.')} failed ({' '.join(str(error).split())[:120]})"


def _trial(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """The last token of a sequence of sixteen: one query of two heads, keys and values of one head."""
    waves = torch.arange(34 * 64, device=device).mul(0.7).sin().to(dtype).view(34, 64)
    return waves[:2].view(1, 2, 64), waves[2:18].view(16, 1, 64), waves[18:].view(16, 1, 64)


def _agrees(mixed: Tensor, q: Tensor, k: Tensor, v: Tensor) -> bool:
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    dense = scaled_dot_product_attention(q, k, v, enable_gqa=True)[0].transpose(0, 1)
    return torch.allclose(mixed, dense, atol=2e-2)


def _try_gathered(device: torch.device, dtype: torch.dtype) -> bool:
    q, k, v = _trial(device, dtype)
    ends = [torch.tensor([0, n], device=device, dtype=torch.int32) for n in (1, 16)]
    return _agrees(kernel()(q, k, v, *ends, 1, 16, window_size=CAUSAL, enable_gqa=True), q, k, v)


def _try_table(device: torch.device, dtype: torch.dtype) -> bool:
    q, k, v = _trial(device, dtype)
    ends, used = (torch.tensor(values, device=device, dtype=torch.int32) for values in ([0, 1], [16]))
    mixed = kernel()(
        q, k[None], v[None], ends, None, 1, 16, window_size=CAUSAL, enable_gqa=True, seqused_k=used,
        block_table=torch.zeros(1, 1, device=device, dtype=torch.int32),
    )  # fmt: skip
    return _agrees(mixed, q, k, v)

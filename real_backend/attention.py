"""Attention of one mixed pass over paged memory, by the backends among which `choose` picks one at start-up.

Each is made for one pass and called once a layer. It stores the new keys and values, then attends over what the cache
holds; everything is stored before anything is read, so a sequence may share blocks that another one fills in this pass.
`features` says what decodes cost it, for the cost model: `padded` is every context as long as the longest one, `ragged`
each context as long as it is.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from airi_sim.core.errors import BadInput, unknown
from airi_sim.models.spec import ModelSpec
from real_backend.batch import Batch, Chunk, Decodes
from real_backend.kv import PagedKV
from real_backend.varlen import GatheredAttention, TableAttention

PIECE_BYTES = 2 << 20
"""Of keys and values gathered at once, about what the second cache of a core holds (docs/performance.md)."""


class Attention(Protocol):
    """A backend: `Attend` of one pass."""

    features: ClassVar[str]

    def __init__(self, spec: ModelSpec, cache: PagedKV, batch: Batch) -> None: ...

    def __call__(self, layer: int, qkv: Tensor) -> Tensor: ...

    @staticmethod
    def problem(device: torch.device, dtype: torch.dtype, /) -> str:
        """Why it cannot run there; empty if it can."""
        ...


class Piece(NamedTuple):
    """Some decodes of a pass, and where their keys and values are gathered: `rows` is the memory, k and v see it as
    [count, kv_heads, padded context, head_dim]."""

    decodes: Decodes
    rows: Tensor
    k: Tensor
    v: Tensor


class PagedAttention:
    """Decodes padded to the longest context, and one call for each prompt chunk.

    On CPU decodes are gathered and attended to in pieces small enough to stay in the cache. Whatever is the same for
    all layers is made once: a view costs little, but there are hundreds of them.
    """

    __slots__ = ("batch", "cache", "counts", "pieces", "spec", "widths")

    features: ClassVar[str] = "padded"

    def __init__(self, spec: ModelSpec, cache: PagedKV, batch: Batch) -> None:
        self.spec = spec
        self.cache = cache
        self.batch = batch
        self.pieces = [] if batch.decodes is None else pieces(spec, cache, batch.decodes)
        self.counts = [*(piece.decodes.count for piece in self.pieces), len(batch.tokens) - batch.singles]
        self.widths = [spec.heads, 2 * spec.kv_heads]

    def __call__(self, layer: int, qkv: Tensor) -> Tensor:
        q, kv = qkv.split_with_sizes(self.widths, 1)
        self.cache.write(layer, self.batch.slots, kv)
        rows = q.split_with_sizes(self.counts)
        parts = [self._decode(layer, *each) for each in zip(rows, self.pieces, strict=False)]
        parts += [attend(self.spec, self.cache, layer, qkv, chunk) for chunk in self.batch.chunks]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _decode(self, layer: int, q: Tensor, piece: Piece) -> Tensor:
        """Query heads that share a key head become query positions, so that grouped heads need no copy."""
        decodes, rows, k, v = piece
        self.cache.gather(layer, decodes.blocks, rows)
        q = q.view(decodes.count, self.spec.kv_heads, -1, self.spec.head_dim)
        return scaled_dot_product_attention(q, k, v, attn_mask=decodes.mask).reshape(decodes.count, -1)

    @staticmethod
    def problem(_device: torch.device, _dtype: torch.dtype, /) -> str:
        return ""


class SequenceAttention:
    """One call for each sequence, decodes too: no padding, more calls. Pays where one context is much longer than the
    others."""

    __slots__ = ("batch", "cache", "chunks", "spec")

    features: ClassVar[str] = "ragged"

    def __init__(self, spec: ModelSpec, cache: PagedKV, batch: Batch) -> None:
        self.spec = spec
        self.cache = cache
        self.batch = batch
        self.chunks = batch.each(0)

    def __call__(self, layer: int, qkv: Tensor) -> Tensor:
        self.cache.write(layer, self.batch.slots, qkv[:, self.spec.heads :])
        parts = [attend(self.spec, self.cache, layer, qkv, chunk) for chunk in self.chunks]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @staticmethod
    def problem(_device: torch.device, _dtype: torch.dtype, /) -> str:
        return ""


def pieces(spec: ModelSpec, cache: PagedKV, decodes: Decodes) -> list[Piece]:
    """The decodes of a pass as they are gathered: in pieces of PIECE_BYTES on CPU, all at once elsewhere. They take
    turns in the same memory."""
    like = cache.layers[0]
    width = len(decodes.blocks) // decodes.count
    most = max(1, PIECE_BYTES // (width * like[0].nbytes)) if like.device.type == "cpu" else decodes.count
    memory = like.new_empty(min(most, decodes.count) * width, like.shape[1])
    return [_piece(spec, part, memory[: len(part.blocks)]) for part in decodes.split(most)]


def _piece(spec: ModelSpec, decodes: Decodes, rows: Tensor) -> Piece:
    kv = rows.view(decodes.count, -1, 2 * spec.kv_heads, spec.head_dim).transpose(1, 2)
    return Piece(decodes, rows, *kv.chunk(2, 1))


def attend(spec: ModelSpec, cache: PagedKV, layer: int, qkv: Tensor, chunk: Chunk) -> Tensor:
    """The tokens of one sequence over all that is known of it."""
    group = spec.heads // spec.kv_heads
    new = qkv[chunk.first : chunk.last]
    kv = new[:, spec.heads :] if chunk.blocks is None else cache.read(layer, chunk.blocks)[: chunk.total]
    k, v = kv.transpose(0, 1)[:, None].expand(-1, group, -1, -1).chunk(2)
    q = new[:, : spec.heads].view(len(new), spec.kv_heads, group, -1).permute(1, 2, 0, 3)
    causal = chunk.mask is None and len(new) > 1
    mixed = scaled_dot_product_attention(q, k, v, attn_mask=chunk.mask, is_causal=causal)
    return mixed.permute(2, 0, 1, 3).reshape(len(new), -1)


BACKENDS: dict[str, type[Attention]] = {
    "paged": TableAttention,
    "varlen": GatheredAttention,
    "sdpa": PagedAttention,
    "each": SequenceAttention,
}
"""By name; `auto` takes the first that works."""


def choose(name: str, device: torch.device, dtype: torch.dtype) -> tuple[str, type[Attention]]:
    """The backend of `backend.attention` with its name; BadInput if it is unknown or cannot run on this device."""
    if name == "auto":
        return next(item for item in BACKENDS.items() if not item[1].problem(device, dtype))
    if name not in BACKENDS:
        raise unknown("backend.attention", name, ["auto", *BACKENDS])
    problem = BACKENDS[name].problem(device, dtype)
    if problem:
        raise BadInput(f"backend.attention={name} cannot run here, for {problem}: use backend.attention=auto.")
    return name, BACKENDS[name]

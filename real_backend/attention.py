"""Attention of one mixed pass: all decodes in one padded call, one call for each prompt chunk."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from airi_sim.models.spec import ModelSpec
from real_backend.batch import Batch, Chunk, Decodes
from real_backend.kv import PagedKV


class PagedAttention:
    """`Attend` of one pass: stores its keys and values, then attends over what the cache holds.

    Everything is stored before anything is read, so a sequence may share blocks that another one fills in this pass.
    """

    __slots__ = ("batch", "cache", "spec")

    def __init__(self, spec: ModelSpec, cache: PagedKV, batch: Batch) -> None:
        self.spec = spec
        self.cache = cache
        self.batch = batch

    def __call__(self, layer: int, qkv: Tensor) -> Tensor:
        self.cache.write(layer, self.batch.slots, qkv[:, self.spec.heads :])
        parts = [self._chunk(layer, qkv, chunk) for chunk in self.batch.chunks]
        if self.batch.decodes is not None:
            parts.insert(0, self._decode(layer, qkv, self.batch.decodes))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _decode(self, layer: int, qkv: Tensor, decodes: Decodes) -> Tensor:
        """Query heads that share a key head become query positions, so that grouped heads need no copy."""
        spec, count = self.spec, decodes.count
        kv = self.cache.read(layer, decodes.blocks).view(count, -1, 2 * spec.kv_heads, spec.head_dim)
        k, v = kv.transpose(1, 2).chunk(2, 1)
        q = qkv[:count, : spec.heads].view(count, spec.kv_heads, -1, spec.head_dim)
        return scaled_dot_product_attention(q, k, v, attn_mask=decodes.mask).reshape(count, -1)

    def _chunk(self, layer: int, qkv: Tensor, chunk: Chunk) -> Tensor:
        spec, group = self.spec, self.spec.heads // self.spec.kv_heads
        new = qkv[chunk.first : chunk.last]
        kv = new[:, spec.heads :] if chunk.blocks is None else self.cache.read(layer, chunk.blocks)[: chunk.total]
        k, v = kv.transpose(0, 1)[:, None].expand(-1, group, -1, -1).chunk(2)
        q = new[:, : spec.heads].view(len(new), spec.kv_heads, group, -1).permute(1, 2, 0, 3)
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=chunk.mask, is_causal=chunk.mask is None)
        return mixed.permute(2, 0, 1, 3).reshape(len(new), -1)

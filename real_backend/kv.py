"""Where keys and values lie. Which block belongs to whom the runtime decides; this only stores (Kwon 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from airi_sim.models.spec import ModelSpec


class PagedKV:
    """Per layer one tensor [blocks, block_size * 2 * kv_heads * head_dim]; block 0 is for padding.

    Keys and values of a token lie side by side, so one indexed copy writes both and whole block rows are gathered in
    one call (advanced indexing is 2-8 times slower). It starts at zero, because masked garbage must be finite: a NaN
    times an attention weight of zero is still NaN.
    """

    def __init__(
        self, spec: ModelSpec, kv_blocks: int, block_size: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.block_size = block_size
        self.kv_blocks = kv_blocks
        self._pair = (2 * spec.kv_heads, spec.head_dim)
        row = block_size * 2 * spec.kv_heads * spec.head_dim
        self.layers = [torch.zeros(kv_blocks + 1, row, device=device, dtype=dtype) for _ in range(spec.layers)]
        self._slots = [layer.view(-1, *self._pair) for layer in self.layers]

    def write(self, layer: int, slots: Tensor, kv: Tensor) -> None:
        """Store kv [tokens, 2 * kv_heads, head_dim] at `slots` (block * block_size + offset, int64 [tokens])."""
        self._slots[layer].index_copy_(0, slots, kv)

    def tokens(self, layer: int, slots: Tensor) -> Tensor:
        """[tokens, 2 * kv_heads, head_dim] of the tokens at `slots`, as `write` takes them."""
        return self._slots[layer].index_select(0, slots)

    def blocks(self, layer: int) -> Tensor:
        """The memory itself, [blocks, block_size, 2 * kv_heads, head_dim]."""
        return self._slots[layer].view(-1, self.block_size, *self._pair)

    def read(self, layer: int, blocks: Tensor) -> Tensor:
        """[blocks * block_size, 2 * kv_heads, head_dim] of the named blocks (int64), in order."""
        return self.layers[layer].index_select(0, blocks).view(-1, *self._pair)


def block_bytes(spec: ModelSpec, block_size: int, dtype: torch.dtype) -> int:
    """Bytes of one block in all layers."""
    return spec.layers * block_size * 2 * spec.kv_heads * spec.head_dim * dtype.itemsize

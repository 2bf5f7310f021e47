"""Where keys and values lie. Which block belongs to whom the runtime decides; this only stores (Kwon 2023)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise

import torch
from torch import Tensor

from airi_sim.core.types import Copies, Copy
from airi_sim.models.spec import ModelSpec


class PagedKV:
    """Per layer one tensor [blocks, block_size * 2 * kv_heads * head_dim]; block 0 is for padding.

    Keys and values of a token lie side by side, so one indexed copy writes both and whole block rows are gathered in
    one call (advanced indexing is 2-8 times slower). It starts at zero, because masked garbage must be finite: a NaN
    times an attention weight of zero is still NaN.

    `host` has as many tensors of `host_blocks` rows in the memory of the host (pinned for a CUDA device).
    """

    def __init__(
        self,
        spec: ModelSpec,
        kv_blocks: int,
        block_size: int,
        device: torch.device,
        dtype: torch.dtype,
        host_blocks: int = 0,
    ) -> None:
        self.block_size = block_size
        self.kv_blocks = kv_blocks
        self._pair = (2 * spec.kv_heads, spec.head_dim)
        row = block_size * 2 * spec.kv_heads * spec.head_dim
        self.layers = [torch.zeros(kv_blocks + 1, row, device=device, dtype=dtype) for _ in range(spec.layers)]
        self._slots = [layer.view(-1, *self._pair) for layer in self.layers]
        pinned = device.type == "cuda" and host_blocks > 0
        self.host = [torch.empty(host_blocks, row, dtype=dtype, pin_memory=pinned) for _ in range(spec.layers)]

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

    def gather(self, layer: int, blocks: Tensor, out: Tensor) -> None:
        """Copy the named blocks (int64) to the rows of `out`, in order."""
        torch.index_select(self.layers[layer], 0, blocks, out=out)

    @torch.inference_mode()
    def copy(self, copies: Copies) -> None:
        """Copy whole blocks in all layers. Everything on the device is read before anything on it is written; one
        stream, so a pass that follows sees it all."""
        (leaving, to_host), (source, target), (from_host, entering) = (_ids(part) for part in copies)
        device = self.layers[0].device
        leave, read, write, enter = (torch.tensor(ids, device=device) for ids in (leaving, source, target, entering))
        for layer, host in zip(self.layers, self.host, strict=True):
            if leaving:
                _to_host(host, to_host, layer.index_select(0, leave))
            if source:
                layer.index_copy_(0, write, layer.index_select(0, read))
            if entering:
                layer.index_copy_(0, enter, _from_host(host, from_host, layer))


def _ids(part: Sequence[Copy]) -> tuple[list[int], list[int]]:
    """All sources and all targets."""
    return list(chain.from_iterable(copy.source for copy in part)), list(chain.from_iterable(c.target for c in part))


def _to_host(host: Tensor, ids: Sequence[int], rows: Tensor) -> None:
    for first, last in runs(ids):
        host[ids[first] : ids[last - 1] + 1].copy_(rows[first:last], non_blocking=True)


def _from_host(host: Tensor, ids: Sequence[int], like: Tensor) -> Tensor:
    rows = like.new_empty(len(ids), like.shape[1])
    for first, last in runs(ids):
        rows[first:last].copy_(host[ids[first] : ids[last - 1] + 1], non_blocking=True)
    return rows


def runs(ids: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Where ids count up by one, as (first, last + 1): neighbours are one transfer, which over a bus is much faster."""
    breaks = [i for i in range(1, len(ids)) if ids[i] != ids[i - 1] + 1]
    return pairwise([0, *breaks, len(ids)])


def block_bytes(spec: ModelSpec, block_size: int, dtype: torch.dtype) -> int:
    """Bytes of one block in all layers."""
    return spec.layers * block_size * 2 * spec.kv_heads * spec.head_dim * dtype.itemsize

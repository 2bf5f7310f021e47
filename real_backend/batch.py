"""The rows of one pass as tensors, prepared with a handful of vector operations however many sequences there are."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from real_backend.model import Model

HIDING = np.array([0.0, -np.inf], np.float32)
"""What a mask adds to a score that is seen, or hidden."""


class Segment(NamedTuple):
    """What one sequence does in a pass: `tokens` (ids) from position `start`, its KV blocks in order, and whether the
    next token is to be sampled."""

    start: int
    tokens: array[int]
    table: Sequence[int]
    sample: bool


@dataclass(frozen=True, slots=True)
class Decodes:
    """`count` sequences of one token each: their blocks, padded with block 0 to equal length [count * width], and the
    additive mask [count, 1, 1, width * block_size] that hides what is beyond their context."""

    count: int
    blocks: Tensor
    mask: Tensor

    def split(self, sequences: int) -> list[Decodes]:
        """The same in pieces of at most so many sequences."""
        width = len(self.blocks) // self.count
        blocks, masks = torch.split(self.blocks, sequences * width), torch.split(self.mask, sequences)
        return [Decodes(len(mask), rows, mask) for rows, mask in zip(blocks, masks, strict=True)]


class Chunk(NamedTuple):
    """Tokens `first` to `last` of the pass are one sequence of `total` tokens so far; `blocks` is None if nothing of it
    was processed before, `mask` [tokens, total] is None if that needs none: a square is causal, a row sees all."""

    first: int
    last: int
    total: int
    blocks: Tensor | None
    mask: Tensor | None


class Ragged(NamedTuple):
    """The sequences of a pass as kernels of variable length want them (int32 where nothing else is said): ends of
    queries and keys [sequences + 1] and the longest of each, cache slots of all keys (int64), keys of each sequence,
    and its block table [sequences, widest]."""

    query_ends: Tensor
    key_ends: Tensor
    longest_query: int
    longest_key: int
    slots: Tensor
    keys: Tensor
    table: Tensor


@dataclass(frozen=True)
class Batch:
    """One pass: `singles` sequences of one token, then those of several. `ends` are the tokens after which one is
    sampled.

    Sequence i processes `counts[i]` tokens after the `starts[i]` known ones, and its blocks are row i of `table`. What
    an attention backend needs beyond that is made when it asks.
    """

    tokens: Tensor
    positions: Tensor
    slots: Tensor
    ends: Tensor
    singles: int
    starts: np.ndarray
    counts: np.ndarray
    table: np.ndarray
    block_size: int
    model: Model

    @cached_property
    def decodes(self) -> Decodes | None:
        """The sequences of one token, padded to the longest."""
        count = self.singles
        if not count:
            return None
        contexts = self.starts[:count] + 1
        width = -(-max(contexts.tolist()) // self.block_size)
        hidden = np.arange(width * self.block_size) >= contexts[:, None, None, None]
        mask = _tensor(HIDING.take(hidden), self.model).to(self.model.dtype)
        blocks = np.ascontiguousarray(self.table[:count, :width]).reshape(-1)
        return Decodes(count, _tensor(blocks, self.model), mask)

    @cached_property
    def chunks(self) -> tuple[Chunk, ...]:
        """The sequences of several tokens, each by itself."""
        return self.each(self.singles)

    def each(self, first: int) -> tuple[Chunk, ...]:
        """All sequences from `first` on, each by itself."""
        lasts = self.counts.cumsum()
        return tuple(self._chunk(row, int(lasts[row])) for row in range(first, len(self.counts)))

    def _chunk(self, row: int, last: int) -> Chunk:
        start, count = int(self.starts[row]), int(self.counts[row])
        total = start + count
        if not start:
            return Chunk(last - count, last, total, None, None)
        blocks = _tensor(self.table[row, : -(-total // self.block_size)], self.model)
        if count == 1:
            return Chunk(last - count, last, total, blocks, None)
        mask = torch.full((count, total), -torch.inf, dtype=self.model.dtype, device=self.model.device)
        return Chunk(last - count, last, total, blocks, mask.triu_(start + 1))

    @cached_property
    def ragged(self) -> Ragged:
        """All sequences, without padding."""
        keys = self.starts + self.counts
        ends, size = keys.cumsum(), self.block_size
        owners, places = np.repeat(np.arange(len(keys)), keys), np.arange(ends[-1]) - np.repeat(ends - keys, keys)

        def narrow(values: np.ndarray) -> Tensor:
            return _tensor(np.ascontiguousarray(values, np.int32), self.model)

        return Ragged(
            query_ends=narrow(np.append(0, self.counts.cumsum())),
            key_ends=narrow(np.append(0, ends)),
            longest_query=int(self.counts.max()),
            longest_key=int(keys.max()),
            slots=_tensor(self.table[owners, places // size] * size + places % size, self.model),
            keys=narrow(keys),
            table=narrow(self.table),
        )


def arrange(segments: Sequence[Segment]) -> list[int]:
    """The order in which a batch holds its segments: single tokens first."""
    return sorted(range(len(segments)), key=lambda index: len(segments[index].tokens) > 1)


def pack(segments: Sequence[Segment], block_size: int, model: Model) -> Batch:
    """Tensors of a pass over `segments`, which are in the order of `arrange`."""
    sizes = [len(segment.tokens) for segment in segments]
    starts, counts = np.array([segment.start for segment in segments], np.int64), np.array(sizes, np.int64)
    tokens, table = _tokens(segments), _table(segments, block_size)
    owners, positions, lasts = np.arange(len(segments)), starts, np.arange(len(segments))
    if len(tokens) > len(segments):
        lasts = counts.cumsum() - 1
        owners = owners.repeat(counts)
        positions = np.arange(len(tokens)) + (starts - lasts + counts - 1)[owners]
    blocks, offsets = np.divmod(positions, block_size)
    return Batch(
        tokens=_tensor(tokens, model),
        positions=_tensor(positions, model),
        slots=_tensor(table[owners, blocks] * block_size + offsets, model),
        ends=_tensor(lasts[[segment.sample for segment in segments]], model),
        singles=sizes.count(1),
        starts=starts,
        counts=counts,
        table=table,
        block_size=block_size,
        model=model,
    )


def _tensor(values: np.ndarray, model: Model) -> Tensor:
    tensor = torch.from_numpy(values)
    return tensor if model.device.type == "cpu" else tensor.to(model.device, non_blocking=True)


def _tokens(segments: Sequence[Segment]) -> np.ndarray:
    flat = array("q")
    for segment in segments:
        flat.extend(segment.tokens)
    return np.frombuffer(flat, np.int64)


def _table(segments: Sequence[Segment], block_size: int) -> np.ndarray:
    """Blocks of each segment [segments, widest], padded with 0; rebuilt each pass, for a table may change anyhow."""
    needed = [-(-(segment.start + len(segment.tokens)) // block_size) for segment in segments]
    width = max(needed)
    flat: list[int] = []
    padding = [0] * width
    for segment, blocks in zip(segments, needed, strict=True):
        flat += segment.table[:blocks]
        flat += padding[blocks:]
    return np.array(flat, np.int64).reshape(len(segments), width)

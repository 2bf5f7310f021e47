"""The rows of one pass as tensors, prepared with a handful of vector operations however many sequences there are."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from real_backend.model import Model


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


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens `first` to `last` of the pass are one sequence; `blocks` and `mask` [tokens, total] are None if nothing
    of it was processed before."""

    first: int
    last: int
    total: int
    blocks: Tensor | None
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class Batch:
    """One pass: decodes first, then chunks. `ends` are the tokens after which one is sampled."""

    tokens: Tensor
    positions: Tensor
    slots: Tensor
    ends: Tensor
    decodes: Decodes | None
    chunks: tuple[Chunk, ...]


def arrange(segments: Sequence[Segment]) -> list[int]:
    """The order in which a batch holds its segments: single tokens first."""
    return sorted(range(len(segments)), key=lambda index: len(segments[index].tokens) > 1)


def pack(segments: Sequence[Segment], block_size: int, model: Model) -> Batch:
    """Tensors of a pass over `segments`, which are in the order of `arrange`."""
    starts = np.fromiter((segment.start for segment in segments), np.int64, len(segments))
    counts = np.fromiter((len(segment.tokens) for segment in segments), np.int64, len(segments))
    lasts = counts.cumsum()
    positions = np.arange(lasts[-1]) + np.repeat(starts - lasts + counts, counts)
    table = _table(segments, -(-(starts + counts) // block_size))
    owners = np.repeat(np.arange(len(segments)), counts)
    slots = table[owners, positions // block_size] * block_size + positions % block_size
    sampled = np.fromiter((segment.sample for segment in segments), bool, len(segments))
    return Batch(
        tokens=_tensor(_tokens(segments), model),
        positions=_tensor(positions, model),
        slots=_tensor(slots, model),
        ends=_tensor(lasts[sampled] - 1, model),
        decodes=_decodes(starts, counts, table, block_size, model),
        chunks=_chunks(starts, counts, lasts, table, block_size, model),
    )


def _tensor(values: np.ndarray, model: Model) -> Tensor:
    tensor = torch.from_numpy(values)
    return tensor if model.device.type == "cpu" else tensor.to(model.device, non_blocking=True)


def _tokens(segments: Sequence[Segment]) -> np.ndarray:
    flat = array("q")
    for segment in segments:
        flat.extend(segment.tokens)
    return np.frombuffer(flat, np.int64)


def _table(segments: Sequence[Segment], needed: np.ndarray) -> np.ndarray:
    """Blocks of each segment [segments, widest], padded with 0; rebuilt each pass, for a table may change anyhow."""
    flat = chain.from_iterable(
        segment.table[:blocks] for segment, blocks in zip(segments, needed.tolist(), strict=True)
    )
    table = np.zeros((len(segments), int(needed.max())), np.int64)
    table[np.arange(table.shape[1]) < needed[:, None]] = np.fromiter(flat, np.int64, int(needed.sum()))
    return table


def _decodes(
    starts: np.ndarray, counts: np.ndarray, table: np.ndarray, block_size: int, model: Model
) -> Decodes | None:
    count = int((counts == 1).sum())
    if not count:
        return None
    contexts = starts[:count] + 1
    width = -(-int(contexts.max()) // block_size)
    hidden = torch.arange(width * block_size) >= torch.from_numpy(contexts)[:, None]
    mask = torch.zeros(hidden.shape, dtype=model.dtype).masked_fill_(hidden, -torch.inf)
    blocks = np.ascontiguousarray(table[:count, :width]).reshape(-1)
    return Decodes(count, _tensor(blocks, model), mask[:, None, None].to(model.device))


def _chunks(
    starts: np.ndarray, counts: np.ndarray, lasts: np.ndarray, table: np.ndarray, block_size: int, model: Model
) -> tuple[Chunk, ...]:
    return tuple(
        _chunk(int(starts[row]), int(counts[row]), int(lasts[row]), table[row], block_size, model)
        for row in range(int((counts == 1).sum()), len(counts))
    )


def _chunk(start: int, count: int, last: int, blocks: np.ndarray, block_size: int, model: Model) -> Chunk:
    total = start + count
    if not start:
        return Chunk(last - count, last, total, None, None)
    mask = torch.full((count, total), -torch.inf, dtype=model.dtype, device=model.device).triu_(start + 1)
    used = blocks[: -(-total // block_size)]
    return Chunk(last - count, last, total, _tensor(used, model), mask)

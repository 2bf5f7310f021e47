"""One forward pass over some segments: the same code for passes that count and for calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from real_backend.attention import Attention, PagedAttention
from real_backend.batch import Segment, arrange, pack
from real_backend.clock import Stopwatch
from real_backend.kv import PagedKV
from real_backend.model import Images, Model, hidden_states


class Runner:
    """A model with a cache, and how it attends. `images` finds what stands for image tokens in a pass, if any do."""

    def __init__(self, model: Model, cache: PagedKV, attention: type[Attention] = PagedAttention) -> None:
        self.model = model
        self.cache = cache
        self.attention = attention
        self.images: Callable[[Model, Tensor], Images | None] | None = None

    def run(self, segments: Sequence[Segment], watch: Stopwatch) -> dict[int, int]:
        """Process all segments in one pass and sample greedily: token by index of the segments that asked for one."""
        asking, logits = self.logits(segments, watch)
        return dict(zip(asking, best(logits), strict=True)) if asking else {}

    @torch.inference_mode()
    def logits(self, segments: Sequence[Segment], watch: Stopwatch, whole: int = 0) -> tuple[list[int], Tensor]:
        """Process all segments in one pass: the indexes of those that asked for a token, and for each its logits. The
        first `whole` of them ask for one after each of their tokens, and are there as often."""
        model = self.model
        order = arrange(segments)
        batch = pack([segments[index] for index in order], self.cache.block_size, model)
        attend = self.attention(model.spec, self.cache, batch)
        watch.lap()
        images = self.images(model, batch.tokens) if self.images is not None else None
        states = hidden_states(model, batch.tokens, batch.positions, attend, images)
        watch.lap()
        if whole:
            return every_token(segments, order, whole, states, model)
        asking = [index for index in order if segments[index].sample]
        ends = states.index_select(0, batch.ends)
        return asking, model.head(ends) if asking else ends


def every_token(
    segments: Sequence[Segment], order: Sequence[int], whole: int, states: Tensor, model: Model
) -> tuple[list[int], Tensor]:
    """The indexes and logits of a pass in which the first `whole` segments ask after each of their tokens."""
    asking: list[int] = []
    rows: list[int] = []
    end = 0
    for index in order:
        count = len(segments[index].tokens)
        end += count
        wanted = count if index < whole else int(segments[index].sample)
        asking += [index] * wanted
        rows += range(end - wanted, end)
    return asking, model.head(states[rows])


def best(logits: Tensor) -> list[int]:
    """The most likely token of each row, the first one if several are."""
    # numpy vectorises it: 10 us for 16 x 8,192 where torch takes 110
    on_host = logits.device.type == "cpu" and logits.dtype == torch.float32
    found: list[int] = (logits.numpy() if on_host else logits).argmax(-1).tolist()
    return found

"""One forward pass over some segments: the same code for passes that count and for calibration."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from real_backend.attention import PagedAttention
from real_backend.batch import Segment, arrange, pack
from real_backend.clock import Stopwatch
from real_backend.kv import PagedKV
from real_backend.model import Model, hidden_states


class Runner:
    """A model with a cache."""

    def __init__(self, model: Model, cache: PagedKV) -> None:
        self.model = model
        self.cache = cache

    @torch.inference_mode()
    def run(self, segments: Sequence[Segment], watch: Stopwatch) -> dict[int, int]:
        """Process all segments in one pass and sample greedily: token by index of the segments that asked for one."""
        model = self.model
        order = arrange(segments)
        batch = pack([segments[index] for index in order], self.cache.block_size, model)
        watch.lap()
        states = hidden_states(model, batch.tokens, batch.positions, PagedAttention(model.spec, self.cache, batch))
        watch.lap()
        asking = [index for index in order if segments[index].sample]
        if not asking:
            return {}
        tokens = model.head(states.index_select(0, batch.ends)).argmax(-1).tolist()
        return dict(zip(asking, tokens, strict=True))

"""Tensor parallelism: two ranks give the tokens and logits of one, in every family and every way to run them.

Ranks are threads here, except in one test: what is cut and where sums belong does not depend on what carries them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from airi_sim.core.errors import BadInput
from airi_sim.models.spec import ModelSpec
from real_backend import parallel, weights
from real_backend.kv import PagedKV
from tests.real_backend import ways
from tests.real_backend.families import OUTPUTS, PROMPTS, SPECS
from tests.real_backend.test_families import by_reference, check, drawn

pytestmark = pytest.mark.real
DIVISIBLE = [name for name, spec in SPECS.items() if spec.kv_heads % 2 == 0]


class Threads:
    """Ranks that are threads of this process, and meet at a barrier before and after they look at each other."""

    def __init__(self, rank: int, ranks: int, table: list[Tensor], barrier: threading.Barrier) -> None:
        self.rank, self.ranks, self.table, self.barrier = rank, ranks, table, barrier

    def add(self, values: Tensor) -> None:
        parts = self.gather(values)
        values.copy_(torch.stack(parts).sum(0))

    def gather(self, values: Tensor) -> list[Tensor]:
        self.table[self.rank] = values.clone()
        self.barrier.wait()
        parts = list(self.table)
        self.barrier.wait()
        return parts


class RankDesk(ways.Desk):
    """A desk whose model is a rank's share."""

    def __init__(self, group: parallel.Group, spec: ModelSpec, tensors: Mapping[str, Tensor]) -> None:
        self.model = parallel.share(spec, tensors, group, "cpu", torch.float32)
        self.cache = PagedKV(
            self.model.spec, ways.BLOCKS, ways.SIZE, torch.device("cpu"), torch.float32, host_blocks=ways.BLOCKS
        )
        self.free = list(range(ways.BLOCKS, 0, -1))


@pytest.fixture
def on_ranks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Run a way on so many ranks at once; what each of them found."""
    mine = threading.local()
    monkeypatch.setattr(ways, "Desk", lambda spec, tensors: RankDesk(mine.group, spec, tensors))

    def run(ranks: int, way: Callable[[], Any]) -> list[Any]:
        table, barrier = [torch.empty(0)] * ranks, threading.Barrier(ranks, timeout=30)

        def one(rank: int) -> Any:
            mine.group = Threads(rank, ranks, table, barrier)
            return way()

        with ThreadPoolExecutor(ranks) as pool:
            return list(pool.map(one, range(ranks)))

    return run


@pytest.mark.parametrize(
    ("family", "way"),
    [(family, list(ways.WAYS)[(i + k) % len(ways.WAYS)]) for i, family in enumerate(DIVISIBLE) for k in (1, 4)],
)
def test_two_ranks_give_the_tokens_and_logits_of_the_dense_reference(
    on_ranks: Callable[..., list[Any]], family: str, way: str
) -> None:
    """Two ways for each family, so that each way is run."""
    found = on_ranks(2, partial(ways.WAYS[way], SPECS[family], drawn(family), PROMPTS, OUTPUTS))
    for traces in found:
        check(traces, partial(by_reference, family))


def test_a_rank_holds_its_part_and_no_more() -> None:
    """Everything but embeddings, norms and routers is cut: weights, and the keys and values of its heads."""
    for name in DIVISIBLE:
        spec, whole = SPECS[name], drawn(name)
        parts = [parallel.parts(spec, whole, Threads(rank, 2, [], threading.Barrier(2))) for rank in range(2)]
        for key, tensor in whole.items():
            kept = [part[key].numel() for part in parts]
            copied = any(
                word in key for word in ("embed_tokens", "norm", "mlp.gate.", "shared_expert_gate", "o_proj.bias")
            )
            assert kept == ([tensor.numel()] * 2 if copied else [tensor.numel() // 2] * 2), key
        assert parallel.narrowed(spec, 2).kv_heads * 2 == spec.kv_heads


def test_biases_are_added_once() -> None:
    group = Threads(1, 2, [], threading.Barrier(2))
    parts = parallel.parts(SPECS["llama3"], drawn("llama3"), group)
    assert not parts["model.layers.0.self_attn.o_proj.bias"].any()
    assert parts["model.layers.0.self_attn.q_proj.bias"].numel() == 32


def test_a_vocabulary_that_is_not_divisible_is_padded_and_cut_again(on_ranks: Callable[..., list[Any]]) -> None:
    spec = replace(SPECS["llama"], vocab=127)
    x, tensors = torch.randn(3, spec.hidden), weights.draw(spec)

    def logits() -> Tensor:
        desk: Any = ways.Desk(spec, tensors)
        found: Tensor = desk.model.head(x)
        return found

    for found in on_ranks(2, logits):
        assert torch.allclose(found, x @ tensors["lm_head.weight"].T, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "ranks", "sentence"),
    [
        ("mistral", 2, "the 1 heads of keys and values"),
        ("llama", 8, "the 4 query heads"),
        ("llama_tied", 3, "the 4 query heads"),
    ],
)
def test_a_number_of_ranks_that_does_not_divide_is_refused(family: str, ranks: int, sentence: str) -> None:
    with pytest.raises(BadInput, match=f"pool 'p' has tp={ranks}, but {sentence}"):
        parallel.check(SPECS[family], ranks, "p")

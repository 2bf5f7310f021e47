"""The decoder gives the logits of independent implementations, however a sequence is cut into passes."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from airi_sim.core.errors import BadInput
from airi_sim.models.rope import RopeScaling
from airi_sim.models.spec import ModelSpec
from real_backend import model as models
from real_backend import weights
from real_backend.attention import PagedAttention
from real_backend.batch import Segment, arrange, pack
from real_backend.kv import PagedKV
from real_backend.linear import Packed, Plain, packing_works
from tests.real_backend.reference import logits as reference_logits
from tests.real_backend.stored import save
from tests.real_backend.ways import SIZE, forward
from tests.real_backend.world import LLAMA, QWEN3, SPECS, llama

pytestmark = pytest.mark.real
TEXT = [(7 * index * index + 3) % LLAMA.vocab for index in range(41)]


def build(spec: ModelSpec) -> models.Model:
    return models.build(spec, weights.draw(spec, seed=1), "cpu", torch.float32)


def cache(spec: ModelSpec) -> PagedKV:
    return PagedKV(spec, 40, SIZE, torch.device("cpu"), torch.float32)


def logits(model: models.Model, kv: PagedKV, segments: list[Segment]) -> torch.Tensor:
    """Logits of every token of a pass, in the order of the batch."""
    parts = forward(model, kv, segments)
    return torch.cat([parts[index] for index in arrange(segments)])


def segment(start: int, stop: int, table: list[int], text: list[int] = TEXT) -> Segment:
    return Segment(start, array("q", text[start:stop]), table, True)


def in_passes(model: models.Model, kv: PagedKV, cuts: list[int]) -> torch.Tensor:
    table = list(range(30, 30 - -(-len(TEXT) // SIZE), -1))
    return torch.cat([logits(model, kv, [segment(a, b, table)]) for a, b in pairwise([0, *cuts, len(TEXT)])])


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("cuts", [[], [13, 14, 30], list(range(1, 41))], ids=["whole", "chunks", "singles"])
def test_logits_are_those_of_dense_attention(spec: ModelSpec, cuts: list[int]) -> None:
    expected = reference_logits(spec, weights.draw(spec, seed=1), TEXT)
    assert torch.allclose(in_passes(build(spec), cache(spec), cuts), expected, atol=1e-4)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_mixed_pass_gives_each_sequence_its_own_logits(spec: ModelSpec) -> None:
    """Three decodes of unlike context, one chunk with context and one without, in one forward."""
    model, kv = build(spec), cache(spec)
    texts = [[(token + shift) % spec.vocab for token in TEXT] for shift in range(5)]
    spans = [(3, 4), (8, 17), (12, 13), (0, 6), (29, 30)]
    tables = [list(range(8 * row + 8, 8 * row, -1)) for row in range(5)]
    for (start, _), text, table in zip(spans, texts, tables, strict=True):
        if start:
            logits(model, kv, [segment(0, start, table, text)])
    segments = [segment(*span, table, text) for span, table, text in zip(spans, tables, texts, strict=True)]
    mixed = logits(model, kv, segments)
    dense = [reference_logits(spec, weights.draw(spec, seed=1), text[:stop]) for (_, stop), text in zip(spans, texts)]  # noqa: B905
    expected = torch.cat([dense[row][slice(*spans[row])] for row in arrange(segments)])
    assert torch.allclose(mixed, expected, atol=1e-4)


@pytest.mark.parametrize("garbage", [1e4, -1e4])
def test_what_lies_in_unused_memory_does_not_matter(garbage: float) -> None:
    """Padding and the rest of a last block are masked; blocks of others may even hold NaN."""
    model, clean, dirty = build(LLAMA), cache(LLAMA), cache(LLAMA)
    tables = [[5], [9, 2, 17, 11, 4, 8]]
    for layer in dirty.layers:
        layer.fill_(torch.nan)
        layer[[0, *tables[0], *tables[1]]] = garbage
    segments = [segment(0, 1, tables[0]), segment(20, 21, tables[1])]
    for kv in (clean, dirty):
        logits(model, kv, [segment(0, 20, tables[1])])
    assert torch.equal(logits(model, clean, segments), logits(model, dirty, segments))


def test_the_mask_of_single_tokens_hides_exactly_what_comes_later() -> None:
    batch = pack([segment(2, 3, [1]), segment(9, 10, [2, 3, 4])], SIZE, build(LLAMA))
    assert batch.decodes is not None
    assert batch.decodes.blocks.tolist() == [1, 0, 0, 2, 3, 4]
    assert (batch.decodes.mask == 0).sum(-1).flatten().tolist() == [3, 10]
    assert batch.slots.tolist() == [1 * SIZE + 2, 4 * SIZE + 1]


def test_same_seed_same_weights() -> None:
    first, again, other = (weights.draw(LLAMA, seed) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first[weights.EMBEDDING], other[weights.EMBEDDING])


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_drawn_tensors_are_all_parameters(spec: ModelSpec) -> None:
    assert sum(tensor.numel() for tensor in weights.draw(spec).values()) == spec.parameters


OTHERS: list[dict[str, Any]] = [
    {"family": "gemma"}, {"kv_rank": 8}, {"window": 64}, {"gated": False}, {"bias": True}, {"gate": True},
    {"activation": "gelu"}, {"rope_scaling": RopeScaling("yarn", 4.0)}, {"sinks": True}, {"qk_norm": "whole"},
    {"positions": 64}, {"hidden": 32},
]  # fmt: skip


@pytest.mark.parametrize("change", OTHERS, ids=lambda change: next(iter(change)))
def test_other_architectures_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="torch backend cannot run"):
        models.check(llama(**change))


def test_packed_products_are_plain_products() -> None:
    if not packing_works():
        pytest.skip("this build of torch has no packed product")
    x, weight, bias = torch.randn(5, 48), torch.randn(33, 48), torch.randn(33)
    assert torch.allclose(Packed(weight, bias)(x), Plain(weight, bias)(x), atol=1e-4)


def test_embeddings_are_unit_vectors_that_do_not_depend_on_the_batch() -> None:
    model = build(LLAMA)
    with torch.inference_mode():
        together = models.encode(model, torch.tensor(TEXT), [11, 1, 29])
        alone = models.encode(model, torch.tensor(TEXT[12:]), [29])
        reversed_text = models.encode(model, torch.tensor(TEXT[:11][::-1]), [11])
    assert torch.allclose(together.norm(dim=-1), torch.ones(3))
    assert torch.allclose(together[2], alone[0], atol=1e-5)
    assert not torch.allclose(together[0], reversed_text[0], atol=1e-3)


def test_embeddings_look_both_ways() -> None:
    """The state of the first token depends on the last one, unlike in a decoder."""
    model = build(LLAMA)
    with torch.inference_mode():
        pooled = models.encode(model, torch.tensor(TEXT[:8]), [8])[0]
        causal = models.hidden_states(
            model,
            torch.tensor(TEXT[:8]),
            torch.arange(8),
            PagedAttention(LLAMA, cache(LLAMA), pack([segment(0, 8, [1, 2])], SIZE, model)),
        )
    assert not torch.allclose(pooled, torch.nn.functional.normalize(causal.mean(0), dim=0), atol=1e-3)


# -- stored weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_stored_weights_are_read_bit_by_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    drawn = weights.draw(QWEN3, dtype=dtype)
    names = list(drawn)
    save(tmp_path / "model-1.safetensors", {name: drawn[name] for name in names[:5]})
    save(tmp_path / "model-2.safetensors", {name: drawn[name] for name in names[5:]})
    read = weights.read(QWEN3, tmp_path)
    assert all(torch.equal(read[name], drawn[name]) for name in names)


def test_safetensors_of_the_library_are_read(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.torch")
    drawn = weights.draw(LLAMA)
    library.save_file(drawn, tmp_path / "model.safetensors")
    read = weights.read(LLAMA, tmp_path / "model.safetensors")
    assert all(torch.equal(read[name], drawn[name]) for name in drawn)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "model.safetensors", weights.draw(LLAMA))
    with pytest.raises(BadInput, match="q_norm"):
        weights.read(llama(qk_norm="head"), tmp_path)
    with pytest.raises(BadInput, match="shape"):
        weights.read(llama(ffn=32), tmp_path)
    with pytest.raises(BadInput, match="no weights"):
        weights.read(LLAMA, tmp_path / "absent")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda _: b"", "does not begin with a header in JSON"),
        (lambda _: b"\xff" * 100, "does not begin with a header in JSON"),
        (lambda _: (3).to_bytes(8, "little") + b"[1]", "does not begin with a header in JSON"),
        (lambda whole: whole[:-1], "ends before its last tensor does"),
    ],
    ids=["empty", "noise", "a list", "cut off"],
)
def test_damaged_files_are_refused(tmp_path: Path, damage: Callable[[bytes], bytes], sentence: str) -> None:
    path = tmp_path / "model.safetensors"
    save(path, weights.draw(LLAMA))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadInput, match=f"model.safetensors' .*{sentence}"):
        weights.read(LLAMA, path)

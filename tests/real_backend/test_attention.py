"""Attention backends: each one gives what dense attention gives, and one that cannot run says why."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from airi_sim.core.errors import BadInput
from airi_sim.hardware.features import features
from airi_sim.models.spec import ModelSpec
from real_backend import attention, varlen, weights
from real_backend import model as models
from real_backend.attention import BACKENDS, PagedAttention, choose
from real_backend.backend import TorchBackend
from real_backend.batch import Segment, arrange, pack
from real_backend.kv import PagedKV
from tests.real_backend.reference import logits as dense_logits
from tests.real_backend.world import LLAMA, POOL, QWEN3, Fixed, Mini, job

pytestmark = pytest.mark.real
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SIZE = 4
TEXTS = [[(7 * i * i + 11 * shift) % LLAMA.vocab for i in range(41)] for shift in range(5)]
SPANS = [(3, 4), (8, 17), (12, 13), (0, 6), (29, 30)]


def by_the_documentation(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor | None,
    max_q: int,
    max_k: int,
    *,
    window_size: tuple[int, int],
    enable_gqa: bool,
    seqused_k: Tensor | None = None,
    block_table: Tensor | None = None,
) -> Tensor:
    """varlen_attn one sequence, one head and one query at a time; keys are packed, or in pages of a table."""
    assert window_size == (-1, 0) and enable_gqa
    ends = cu_seq_q.tolist()
    out = torch.empty_like(query)
    for row in range(len(ends) - 1):
        k, v = (_keys(x, row, cu_seq_k, seqused_k, block_table) for x in (key, value))
        count, group = ends[row + 1] - ends[row], query.shape[1] // k.shape[1]
        assert count <= max_q and len(k) <= max_k
        for i in range(count):
            seen = len(k) - count + i + 1
            for head in range(query.shape[1]):
                scores = k[:seen, head // group] @ query[ends[row] + i, head] / query.shape[2] ** 0.5
                out[ends[row] + i, head] = scores.softmax(0) @ v[:seen, head // group]
    return out


def _keys(x: Tensor, row: int, ends: Tensor | None, used: Tensor | None, table: Tensor | None) -> Tensor:
    if ends is not None:
        return x[ends[row] : ends[row + 1]]
    assert table is not None and used is not None and table.dtype == used.dtype == torch.int32
    return x[table[row].long()].flatten(0, 1)[: used[row]]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel of variable length as it is documented, on any device."""
    monkeypatch.setattr(varlen, "kernel", lambda: by_the_documentation)


def states(spec: ModelSpec, name: str) -> tuple[Tensor, list[int]]:
    """Logits of a mixed pass of three single tokens and two chunks, and the order of its sequences."""
    model = models.build(spec, weights.draw(spec, seed=1), "cpu", torch.float32)
    cache = PagedKV(spec, 60, SIZE, CPU, torch.float32)
    tables = np.random.default_rng(0).permutation(np.arange(1, 61))[:55].reshape(5, 11).tolist()

    def run(segments: list[Segment]) -> Tensor:
        batch = pack([segments[index] for index in arrange(segments)], SIZE, model)
        attend = BACKENDS[name](spec, cache, batch)
        return model.head(models.hidden_states(model, batch.tokens, batch.positions, attend))

    def segment(row: int, start: int, stop: int) -> Segment:
        return Segment(start, array("q", TEXTS[row][start:stop]), tables[row], True)

    with torch.inference_mode():
        for row, (start, _) in enumerate(SPANS):
            if start:
                run([segment(row, 0, start)])
        mixed = [segment(row, *span) for row, span in enumerate(SPANS)]
        return run(mixed), arrange(mixed)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("spec", [LLAMA, QWEN3], ids=lambda spec: spec.name)
@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_gives_the_logits_of_dense_attention(spec: ModelSpec, name: str) -> None:
    found, order = states(spec, name)
    drawn = weights.draw(spec, seed=1)
    dense = [dense_logits(spec, drawn, text[:stop])[start:] for text, (start, stop) in zip(TEXTS, SPANS, strict=True)]
    assert torch.allclose(found, torch.cat([dense[row] for row in order]), atol=1e-4)


@pytest.mark.parametrize("sequences", [1, 2, 3])
def test_decodes_in_pieces_are_decodes(monkeypatch: pytest.MonkeyPatch, sequences: int) -> None:
    """Pieces share memory; each is attended to before the next one is gathered."""
    whole, _ = states(LLAMA, "sdpa")
    row = SIZE * 2 * LLAMA.kv_heads * LLAMA.head_dim * 4
    monkeypatch.setattr(attention, "PIECE_BYTES", sequences * 8 * row)
    assert torch.allclose(states(LLAMA, "sdpa")[0], whole, atol=1e-5)


def test_pieces_hold_every_decode_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.build(LLAMA, weights.draw(LLAMA), "cpu", torch.float32)
    cache = PagedKV(LLAMA, 60, SIZE, CPU, torch.float32)
    segments = [Segment(9, array("q", [1]), [3 * row + 1, 3 * row + 2, 3 * row + 3], True) for row in range(7)]
    decodes = pack(segments, SIZE, model).decodes
    assert decodes is not None
    monkeypatch.setattr(attention, "PIECE_BYTES", 3 * 3 * cache.layers[0][0].nbytes)
    found = [piece.decodes for piece in attention.pieces(LLAMA, cache, decodes)]
    assert [piece.count for piece in found] == [3, 3, 1]
    assert torch.equal(torch.cat([piece.blocks for piece in found]), decodes.blocks)
    assert torch.equal(torch.cat([piece.mask for piece in found]), decodes.mask)


# -- the choice


def test_on_a_cpu_auto_is_the_one_that_runs_everywhere() -> None:
    assert choose("auto", CPU, torch.float32) == ("sdpa", PagedAttention)


@pytest.mark.parametrize(
    ("name", "message"),
    [("varlen", "need a CUDA device.*backend.attention=auto"), ("paged", "need a CUDA device"), ("flash", "sdpa")],
)
def test_a_backend_that_cannot_run_says_why(name: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        choose(name, CPU, torch.float32)


def missing() -> Any:
    raise ImportError


@wraps(by_the_documentation)
def refuses(*_: Any, **__: Any) -> Tensor:
    raise NotImplementedError("no kernel for this card")


@wraps(by_the_documentation)
def zeros(query: Tensor, *_: Any, **__: Any) -> Tensor:
    return torch.zeros_like(query)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (missing, "has no torch.nn.attention.varlen"),
        (lambda: torch.nn.functional.softmax, "takes no enable_gqa and no window_size"),
        (lambda: refuses, r"a trial in bfloat16 failed \(no kernel for this card\)"),
        (lambda: zeros, "another result than dense attention"),
    ],
    ids=["absent", "older", "refuses", "wrong"],
)
def test_the_probe_finds_out_why_not(monkeypatch: pytest.MonkeyPatch, kernel: Callable[[], Any], message: str) -> None:
    monkeypatch.setattr(varlen, "kernel", kernel)
    assert re.search(message, varlen.problem(CUDA, torch.bfloat16, varlen.WANTED, gathered))


def gathered(_device: torch.device, dtype: torch.dtype) -> bool:
    """The trial, on the device at hand."""
    return varlen._try_gathered(CPU, dtype)


def test_the_kernel_of_this_torch_takes_what_is_passed_to_it() -> None:
    try:
        parameters = signature(varlen.kernel()).parameters
    except (AttributeError, ImportError):
        pytest.skip("this torch has no torch.nn.attention.varlen")
    if not set(varlen.WANTED_PAGED) <= set(parameters):
        pytest.skip("this torch has another interface, which the probe refuses")
    own = signature(by_the_documentation).parameters
    assert [name for name in parameters if name in own] == list(own)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("attempt", [varlen._try_gathered, varlen._try_table], ids=["gathered", "table"])
def test_a_kernel_that_works_has_no_problem(attempt: varlen.Attempt) -> None:
    assert varlen.problem(CUDA, torch.float32, varlen.WANTED_PAGED, lambda _, dtype: attempt(CPU, dtype)) == ""


def test_auto_takes_the_first_that_has_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def found(_device: torch.device, _dtype: torch.dtype, wanted: tuple[str, ...], _attempt: object) -> str:
        tried.append("paged" if "block_table" in wanted else "varlen")
        return "its page size is another one" if tried[-1] == "paged" else ""

    monkeypatch.setattr(varlen, "problem", found)
    assert choose("auto", CUDA, torch.bfloat16)[0] == "varlen"
    assert tried == ["paged", "varlen"]


# -- what the cost model learns of it


@pytest.mark.parametrize(("name", "kind"), [("sdpa", "padded"), ("each", "ragged")])
def test_a_measured_run_and_its_profile_know_the_backend(
    make_backend: Callable[..., TorchBackend], name: str, kind: str
) -> None:
    """The same tokens; the profile is fitted on the context that this backend really reads."""
    texts = []
    for option in ("auto", name):
        backend = make_backend(attention=option, cocalibrate=True)
        mini = Mini(backend.executor(POOL, 0, Fixed({0: 7, 1: 4, 2: 9})))
        mini.admit(job(index, tokens) for index, tokens in enumerate((9, 23, 4)))
        mini.drain(17)
        texts.append([list(backend.results.get(job(index, 1).id).ids) for index in range(3)])  # type: ignore[union-attr]
    assert texts[0] == texts[1]
    profile = backend.profile()
    assert profile["attention"] == {"name": name, "features": kind}
    section = profile["kinds"]["generate"]
    samples = backend.probe(POOL).samples
    rows = [features(plan, section["knots"], POOL.block_size, kind == "ragged") for plan, _ in samples]
    fitted = sum(float(np.dot(row, list(section["coefficients"].values()))) for row in rows)
    assert fitted == pytest.approx((1 + section["bias_rel"]) * sum(seconds for _, seconds in samples))

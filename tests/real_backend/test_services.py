"""Embedding, search, and the chain of both with a language model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from airi_sim.core.errors import BadInput
from airi_sim.core.types import Call, Job, Outcome, Plan, Request
from real_backend.backend import TorchBackend
from real_backend.results import Documents, Results, Text, Vector, content
from real_backend.services import FlatIndex
from tests.real_backend.world import LLAMA, POOL, Fixed, Mini, job

pytestmark = pytest.mark.real
Make = Callable[..., TorchBackend]
EMBED = replace(POOL, name="embed", kind="embed")
SEARCH = replace(POOL, name="search", kind="search", model=None)
SEARCH = replace(SEARCH, service={"vectors": 500, "width": LLAMA.hidden, "chunk_tokens": 6})


def run(backend: TorchBackend, pool: Any, jobs: list[Job]) -> Outcome:
    executor = backend.executor(pool, 0, Fixed())
    plan = Plan(1, 0.0, [(job, job.tokens) for job in jobs], jobs, prefill_tokens=sum(job.tokens for job in jobs))
    return executor.finish(plan, executor.start(plan, 0.0))


def call(index: int, **call: Any) -> Job:
    return Job(Request(7, 0.0, 10), Call(**call), index, 0.0)


@pytest.mark.parametrize("k", [1, 5, 500])
def test_the_index_is_exact(k: int) -> None:
    index = FlatIndex(500, 16, seed=3)
    queries = torch.nn.functional.normalize(torch.randn(7, 16, generator=torch.Generator().manual_seed(1)), dim=-1)
    scores, found = index.search(queries, k)
    for query, score, documents in zip(queries, scores, found.tolist(), strict=True):
        products = [float(query.double() @ vector.double()) for vector in index.vectors]
        assert len(set(documents)) == k
        assert score.tolist() == pytest.approx(sorted(products, reverse=True)[:k], abs=1e-5)
        assert [products[document] for document in documents] == pytest.approx(score.tolist(), abs=1e-5)


def test_the_index_is_clustered_and_reproducible() -> None:
    """A vector is much nearer to its nearest neighbour than random directions are to theirs."""
    index, again = FlatIndex(400, 64, seed=5), FlatIndex(400, 64, seed=5)
    assert torch.equal(index.vectors, again.vectors)
    nearest = index.search(index.vectors, 2)[0][:, 1].median()
    random = torch.nn.functional.normalize(torch.randn(400, 64, generator=torch.Generator().manual_seed(0)), dim=-1)
    spread = (random @ random.T).fill_diagonal_(-1).max(-1).values.median()
    assert nearest > spread + 0.2


def test_every_job_of_a_batch_gets_its_vector(make_backend: Make) -> None:
    backend = make_backend()
    jobs = [job(index, tokens) for index, tokens in enumerate((5, 1, 12))]
    assert run(backend, EMBED, jobs).stopped == jobs
    again = job(2, 12)
    together = backend.results.get(again.id)
    run(backend, EMBED, [again])
    alone = backend.results.get(again.id)
    assert isinstance(together, Vector)
    assert isinstance(alone, Vector)
    assert torch.allclose(together.values, alone.values, atol=1e-5)


def test_question_search_answer(make_backend: Make) -> None:
    """What the search finds is what its vector is nearest to, and is what the answer reads."""
    backend = make_backend()
    question = call(0, kind="embed", tokens=10)
    search = call(1, kind="search", inputs=(question.id,), items=3)
    answer = call(2, tokens=10 + 3 * 6, inputs=(search.id,))
    run(backend, EMBED, [question])
    run(backend, SEARCH, [search])
    found = backend.results.get(search.id)
    vector = backend.results.get(question.id)
    assert isinstance(found, Documents)
    assert isinstance(vector, Vector)
    index = FlatIndex(500, LLAMA.hidden, seed=0)
    assert found.ids == index.search(vector.values[None], 3)[1][0].tolist()
    read = [token for document in found.ids for token in content(document, 6, LLAMA.vocab)]
    assert backend.sequences.open(answer, Fixed(), LLAMA.vocab).tokens.tolist() == (
        Fixed().prompt(answer, LLAMA.vocab)[:10] + read
    )
    mini = Mini(backend.executor(POOL, 0, Fixed()))
    mini.admit([answer])
    mini.drain()
    assert len(backend.results) == 3
    backend.forget(Request(7, 0.0, 10))
    assert len(backend.results) == len(backend.sequences) == 0


def test_a_vector_of_another_width_is_refused(make_backend: Make) -> None:
    backend = make_backend()
    question = call(0, kind="embed", tokens=10)
    run(backend, EMBED, [question])
    narrow = replace(SEARCH, service={"vectors": 50, "width": 8})
    with pytest.raises(BadInput, match="set the service's width to 64"):
        run(backend, narrow, [call(1, kind="search", inputs=(question.id,))])


def test_a_search_without_a_vector_asks_for_one_of_the_index(make_backend: Make) -> None:
    backend = make_backend()
    alone = call(1, kind="search", items=2)
    run(backend, SEARCH, [alone])
    found = backend.results.get(alone.id)
    assert isinstance(found, Documents)
    assert found.ids[0] == alone.id % 500


def test_inputs_replace_the_end_of_a_prompt_and_never_all_of_it() -> None:
    results, last = Results(), call(3, tokens=6)
    earlier = [call(0), call(1)]
    last.inputs = tuple(each.id for each in earlier)
    own = [1, 2, 3, 4, 5, 6]
    assert results.prompt(last, own, 100) == own
    results.put(earlier[0], Text([10, 11]))
    results.put(earlier[1], Text([12]))
    assert results.prompt(last, own, 100) == [1, 2, 3, 10, 11, 12]
    results.put(earlier[1], Text(range(20, 40)))
    assert results.prompt(last, own, 100) == [1, 10, 11, 20, 21, 22]


def test_results_nobody_releases_make_room() -> None:
    results = Results(limit=3)
    for index in range(10):
        results.put(job(index, 1), Text([index]))
    assert [results.get(job(index, 1).id) is not None for index in (6, 7, 9)] == [False, True, True]
    assert len(results) == 3

"""Services that read texts or look at images, search, and chains of them with a language model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from airi_sim.core.errors import BadInput
from airi_sim.core.types import Call, Job, Outcome, Plan, Request
from airi_sim.models.vision import Vision
from real_backend.backend import TorchBackend
from real_backend.clock import Stopwatch
from real_backend.heads import draw_head
from real_backend.model import encode, pooled
from real_backend.results import Documents, Label, Result, Results, Rows, Seen, Text, Vector, content
from real_backend.services.images import grid
from real_backend.services.index import FlatIndex, IvfIndex, clustered
from real_backend.services.search import Searcher
from real_backend.services.work import Task
from tests.real_backend.world import LLAMA, POOL, Fixed, Mini, Ticks, job

pytestmark = pytest.mark.real
Make = Callable[..., TorchBackend]
EMBED = replace(POOL, name="embed", kind="embed")
SEARCH = replace(POOL, name="search", kind="search", model=None)
SEARCH = replace(SEARCH, service={"vectors": 500, "width": LLAMA.hidden, "chunk_tokens": 6})
RERANK = replace(POOL, name="rerank", kind="rerank", service={"chunk_tokens": 6})
CLASSIFY = replace(POOL, name="classify", kind="classify", service={"labels": 3})
TOWER = Vision(
    layers=2, hidden=32, heads=2, ffn=48, patch=4, positions=16, projector=LLAMA.hidden * (32 + LLAMA.hidden),
    family="siglip_vision_model",
)  # fmt: skip
VISION = replace(POOL, name="vision", kind="vision", model=replace(LLAMA, name="seeing", vision=TOWER))


def run(backend: TorchBackend, pool: Any, jobs: list[Job]) -> Outcome:
    executor = backend.executor(pool, 0, Fixed())
    plan = Plan(1, 0.0, [(job, job.tokens) for job in jobs], jobs, prefill_tokens=sum(job.tokens for job in jobs))
    return executor.finish(plan, executor.start(plan, 0.0))


def call(index: int, **call: Any) -> Job:
    return Job(Request(7, 0.0, 10), Call(**call), index, 0.0)


def results_of(backend: TorchBackend, jobs: list[Job]) -> list[Any]:
    return [backend.results.get(job.id) for job in jobs]


def numbers(result: Result | None) -> torch.Tensor:
    """What a service found, as numbers."""
    match result:
        case Vector(values) | Seen(_, values) | Rows(values):
            return values
        case Label(number, odds):
            return torch.tensor([float(number), *odds])
        case Documents(ids, _, scores):
            return torch.tensor([*map(float, ids), *scores])
    raise AssertionError(result)


@pytest.mark.parametrize(
    ("pool", "sizes"),
    [
        (EMBED, [(5, 1), (1, 1), (12, 1)]),
        (RERANK, [(40, 4), (9, 1), (66, 6)]),
        (CLASSIFY, [(5, 1), (30, 1), (1, 1)]),
        (VISION, [(16, 1), (24, 2), (16, 1), (6, 1)]),
        (SEARCH, [(1, 3), (1, 8)]),
    ],
)
def test_a_batch_is_the_same_as_its_jobs_alone(make_backend: Make, pool: Any, sizes: list[tuple[int, int]]) -> None:
    backend = make_backend()
    jobs = [call(i, kind=pool.kind, tokens=tokens, items=items) for i, (tokens, items) in enumerate(sizes)]
    assert run(backend, pool, jobs).stopped == jobs
    together = results_of(backend, jobs)
    for each in jobs:
        run(backend, pool, [each])
    for found, alone in zip(together, results_of(backend, jobs), strict=True):
        assert torch.allclose(numbers(found), numbers(alone), atol=1e-5)


def chain(backend: TorchBackend, features: torch.Tensor | None = None, keep: int = 4) -> tuple[Documents, Documents]:
    """A search and the ranking of what it found."""
    found, ranked = call(0, kind="search", items=7), call(2, kind="rerank", tokens=7 * 16, budget=keep, items=7)
    run(backend, SEARCH, [found])
    ranked.inputs = (found.id,)
    if features is not None:
        looked = call(1, kind="features", tokens=len(features))
        backend.results.put(looked, Rows(features))
        ranked.inputs = (found.id, looked.id)
    run(backend, RERANK, [ranked])
    before, after = results_of(backend, [found, ranked])
    return before, after


def independent(backend: TorchBackend, documents: Sequence[int]) -> list[float]:
    """Scores of a cross encoder whose head reads the mean state, document by document."""
    model, question = backend.library.model(RERANK), Fixed().prompt(call(2, tokens=7 * 16), LLAMA.vocab)[:10]
    weight = draw_head(LLAMA, 1, backend.library.seed).weight[0]
    texts = [torch.tensor(question + content(document, 6, LLAMA.vocab)) for document in documents]
    means = [pooled(model, text, [len(text)])[0] for text in texts]
    assert all(
        torch.allclose(normalize(m, dim=0), encode(model, t, [16])[0]) for m, t in zip(means, texts, strict=True)
    )
    return [float(mean @ weight) for mean in means]


def test_a_reranker_orders_by_the_scores_of_pairs(make_backend: Make) -> None:
    backend = make_backend()
    found, ranked = chain(backend)
    scores = dict(zip(found.ids, independent(backend, found.ids), strict=True))
    assert ranked.ids == sorted(found.ids, key=lambda document: -scores[document])[:4]
    assert list(ranked.scores) == pytest.approx([scores[document] for document in ranked.ids], abs=1e-5)


def test_features_move_the_order(make_backend: Make) -> None:
    """The user and the last document found have much in common; nobody else has."""
    backend = make_backend()
    features = torch.zeros(8, 4)
    features[0] = features[7] = 100.0
    found, ranked = chain(backend, features)
    plain = dict(zip(found.ids, independent(backend, found.ids), strict=True))
    assert ranked.ids[0] == found.ids[-1]
    assert ranked.scores[0] == pytest.approx(plain[found.ids[-1]] + 100.0**2 * 4 / 4**0.5, rel=1e-4)
    rest = [document for document in chain(backend)[1].ids if document != found.ids[-1]]
    assert ranked.ids[1:] == rest[:3]


def test_an_answer_reads_what_the_reranker_kept(make_backend: Make) -> None:
    backend = make_backend()
    _, ranked = chain(backend, keep=2)
    answer = call(3, tokens=20, inputs=(2 + 7000,))
    assert len(ranked.ids) == 2
    read = [token for document in ranked.ids for token in content(document, 6, LLAMA.vocab)]
    assert backend.sequences.open(answer, Fixed(), LLAMA.vocab).tokens.tolist()[8:] == read


def test_a_classifier_finds_the_likeliest_label(make_backend: Make) -> None:
    backend = make_backend()
    jobs = [call(index, kind="classify", tokens=9) for index in range(6)]
    run(backend, CLASSIFY, jobs)
    labels = results_of(backend, jobs)
    for each, label in zip(jobs, labels, strict=True):
        assert sum(label.odds) == pytest.approx(1.0)
        assert label.odds[label.number] == max(label.odds)
        assert len(label.odds) == 3
        state = pooled(backend.library.model(CLASSIFY), torch.tensor(Fixed().prompt(each, LLAMA.vocab)), [9])[0]
        odds = (draw_head(LLAMA, 3, backend.library.seed).weight @ state).softmax(0)
        assert list(label.odds) == pytest.approx(odds.tolist(), abs=1e-5)


def test_an_answer_sees_the_images(make_backend: Make) -> None:
    """Other image tokens, another answer; the same ones, the same answer, in one pass or in chunks."""
    backend = make_backend()
    run(backend, VISION, [seen := Job(Request(1, 0.0, 8), Call("vision", 16), 0, 0.0)])
    features = numbers(backend.results.get(seen.id))
    assert features.shape == (16, LLAMA.hidden)
    backend.forget(Request(1, 0.0, 8))

    def answer(request: int, features: torch.Tensor, budget: int = 1 << 30) -> list[int]:
        seen = Job(Request(request, 0.0, 8), Call("vision", 16), 0, 0.0)
        backend.results.put(seen, Seen(seen.id, features))
        told = Job(Request(request, 0.0, 8), Call(tokens=24, inputs=(seen.id,)), 1, 0.0)
        sequence = backend.sequences.open(told, Same(), LLAMA.vocab)
        assert [token < 0 for token in sequence.tokens] == [False] * 8 + [True] * 16
        mini = Mini(backend.executor(POOL, 0, Same()))
        mini.admit([told, Job(Request(request, 0.0, 8), Call(tokens=5), 2, 0.0)])
        mini.drain(budget)
        made = backend.results.get(told.id)
        backend.forget(Request(request, 0.0, 8))
        assert isinstance(made, Text)
        return list(made.ids)

    assert answer(1, features) == answer(2, features) == answer(1, features, budget=5)
    assert answer(1, features) != answer(1, 3 * features.roll(1, 1))
    assert backend.results.images == len(backend.results) == 0


class Same(Fixed):
    """One question for everybody."""

    def prompt(self, job: Job, vocabulary: int) -> list[int]:
        return [token % vocabulary for token in range(job.prompt)]


def test_a_tower_for_another_model_is_refused(make_backend: Make) -> None:
    backend = make_backend()
    tower = replace(TOWER, projector=32 * (32 + 32))
    narrow = replace(VISION, model=replace(LLAMA, name="narrow", hidden=32, vision=tower))
    seen = Job(Request(1, 0.0, 8), Call("vision", 16), 0, 0.0)
    run(backend, narrow, [seen])
    mini = Mini(backend.executor(POOL, 0, Fixed()))
    mini.admit([Job(Request(1, 0.0, 8), Call(tokens=24, inputs=(seen.id,)), 1, 0.0)])
    with pytest.raises(BadInput, match="image tokens are 32 wide but 'llama' is 64"):
        mini.drain()


@pytest.mark.parametrize(("patches", "sides"), [(1, (1, 1)), (16, (4, 4)), (12, (3, 4)), (7, (1, 7))])
def test_images_are_as_square_as_can_be(patches: int, sides: tuple[int, int]) -> None:
    assert grid(patches) == sides


def test_recall_is_of_what_was_wanted_not_of_what_was_found() -> None:
    """Ten lists of one vector: reading one of them finds one of four."""
    vectors = torch.eye(10)
    searcher = Searcher(IvfIndex(vectors, 10, 1), 6, Results(), vectors)
    jobs = [Job(Request(index, 0.0, 1), Call("search", items=4), 0, 0.0) for index in range(5)]
    found = searcher.serve([Task(job, vectors[job.request]) for job in jobs], Stopwatch(Ticks()))
    assert [one.ids for one in found if isinstance(one, Documents)] == [[0], [1], [2], [3], [4]]
    assert searcher.findings() == {"recall": 0.25, "queries": 5, "recall_clustered": 0.25, "k": 4}


def test_a_flat_index_has_no_recall_to_tell() -> None:
    assert Searcher(FlatIndex(torch.eye(3)), 6, Results()).findings() == {}


def test_a_job_whose_inputs_left_nothing_is_served_all_the_same(make_backend: Make) -> None:
    backend = make_backend()
    jobs = [call(index, kind="rerank", tokens=5, items=3, budget=2, inputs=(99,)) for index in range(2)]
    run(backend, RERANK, jobs)
    assert [len(set(found.ids) & {0, 1, 2}) for found in results_of(backend, jobs)] == [2, 2]


def test_a_search_that_found_nothing_leaves_nothing_to_rank(make_backend: Make) -> None:
    """As lists of an inverted file may that hold no vector."""
    backend = make_backend()
    searched = call(0, kind="search")
    backend.results.put(searched, Documents([], 6))
    jobs = [call(index, kind="rerank", tokens=5, items=3, budget=2, inputs=(searched.id,)) for index in (1, 2)]
    run(backend, RERANK, jobs)
    assert [found.ids for found in results_of(backend, jobs)] == [[], []]


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
    index = FlatIndex(clustered(500, LLAMA.hidden, seed=0)[0])
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

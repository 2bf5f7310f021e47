"""Vector indexes: exact search, inverted files, and their recall."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from airi_sim.core.errors import BadInput
from airi_sim.hardware.service import IndexShape, index_shape
from real_backend.services.index import FlatIndex, IvfIndex, clustered, k_means, nearest, recall
from real_backend.services.search import build_index

pytestmark = pytest.mark.real


def directions(count: int, width: int, seed: int = 1) -> Tensor:
    drawn = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=-1)


@pytest.mark.parametrize("k", [1, 5, 500])
def test_the_flat_index_is_exact(k: int) -> None:
    index = FlatIndex(clustered(500, 16, seed=3)[0])
    queries = directions(7, 16)
    scores, found = index.search(queries, k)
    for query, score, documents in zip(queries, scores, found.tolist(), strict=True):
        products = [float(query.double() @ vector.double()) for vector in index.vectors]
        assert len(set(documents)) == k
        assert score.tolist() == pytest.approx(sorted(products, reverse=True)[:k], abs=1e-5)
        assert [products[document] for document in documents] == pytest.approx(score.tolist(), abs=1e-5)


def test_vectors_are_clustered_and_reproducible() -> None:
    """A vector is much nearer to its nearest neighbour than random directions are to theirs."""
    vectors, apart = clustered(400, 64, seed=5, more=50)
    assert torch.equal(vectors, clustered(400, 64, seed=5)[0])
    nearby = FlatIndex(vectors).search(vectors, 2)[0][:, 1].median()
    random = directions(400, 64, seed=0)
    spread = (random @ random.T).fill_diagonal_(-1).max(-1).values.median()
    assert nearby > spread + 0.2
    assert FlatIndex(vectors).search(apart, 1)[0].median() > spread + 0.2
    assert FlatIndex(vectors).search(apart, 1)[0].max() < 1 - 1e-4


@settings(max_examples=15, deadline=None)
@given(n=st.integers(20, 300), lists=st.integers(1, 20), k=st.integers(1, 30), seed=st.integers(0, 99))
def test_an_inverted_file_that_reads_all_lists_is_exact(n: int, lists: int, k: int, seed: int) -> None:
    vectors, queries = clustered(n, 24, seed, more=9)
    scores, found = IvfIndex(vectors, lists, lists, seed).search(queries, k)
    exact_scores, exact = FlatIndex(vectors).search(queries, k)
    assert torch.equal(found, exact)
    assert torch.allclose(scores, exact_scores, atol=1e-6)


def test_every_vector_is_in_the_list_of_its_nearest_centre() -> None:
    vectors, _ = clustered(300, 16, seed=2)
    index = IvfIndex(vectors, 12, 3)
    assert sorted(index.order.tolist()) == list(range(300))
    assert torch.equal(index.sorted, vectors[index.order])
    assert index.spans[0][0] == 0
    assert index.spans[-1][1] == 300
    for number, (a, b) in enumerate(index.spans):
        products = vectors[index.order[a:b]].double() @ index.centers.double().T
        assert bool((products.max(-1).values - products[:, number] < 1e-5).all())


def test_k_means_gets_nearer_to_its_vectors_by_every_round() -> None:
    vectors, _ = clustered(600, 32, seed=4)

    def closeness(rounds: int) -> float:
        centers = k_means(vectors, 24, rounds=rounds)
        assert torch.allclose(centers.norm(dim=-1), torch.ones(24), atol=1e-5)
        return float((vectors @ centers.T).max(-1).values.sum())

    found = [closeness(rounds) for rounds in (0, 1, 2, 5, 10)]
    assert found == sorted(found)
    assert found[-1] > found[0] + 10


def test_recall_grows_with_the_lists_that_are_read() -> None:
    """What a wider search reads holds what a narrower one reads, so no document is lost."""
    vectors, queries = clustered(1000, 32, seed=1, more=100)
    hard = directions(100, 32)
    index, exact = IvfIndex(vectors, 32, 1), FlatIndex(vectors)

    def share(asked: Tensor, nprobe: int) -> float:
        index.nprobe = nprobe
        return recall(index.search(asked, 10)[1], exact.search(asked, 10)[1])

    def recalls(asked: Tensor) -> list[float]:
        return [share(asked, nprobe) for nprobe in (1, 2, 4, 16, 32)]

    for asked in (queries, hard):
        shares = recalls(asked)
        assert shares == sorted(shares)
        assert shares[-1] == 1.0
    assert recalls(queries)[0] > 0.8 > recalls(hard)[0]


def test_recall_counts_what_was_found_of_what_should_be() -> None:
    exact = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    assert recall(exact.flip(1), exact) == 1.0
    assert recall(torch.tensor([[1, 2, -1, -1], [5, 9, 7, 0]]), exact) == 0.5


def test_lists_that_hold_too_little_leave_the_rest_open() -> None:
    vectors = directions(6, 8)
    scores, found = IvfIndex(vectors, 6, 1).search(vectors[:2], 4)
    assert found[:, 0].tolist() == [0, 1]
    assert bool((found == -1).any())
    assert torch.equal(found == -1, scores.isinf())


@pytest.mark.parametrize("index", ["flat", "ivf"])
def test_a_batch_of_queries_finds_what_each_finds_alone(index: str) -> None:
    shape = index_shape({"vectors": 800, "width": 16, "index": index}, "s")
    assert shape is not None
    built, queries = build_index(shape, 0, "cpu")
    together = built.search(queries[:20], 5)[1]
    assert torch.equal(together, torch.cat([built.search(query[None], 5)[1] for query in queries[:20]]))


def test_the_shape_of_an_index() -> None:
    assert index_shape({}, "s") is None
    assert index_shape({"vectors": 100, "width": 4}, "s") == IndexShape(100, 4)
    shape = index_shape({"vectors": 10_000, "width": 4, "index": "ivf"}, "s")
    assert shape == IndexShape(10_000, 4, 100, 8)
    assert shape.read == 100 + 8 * 100
    with pytest.raises(BadInput, match="pool 's' reads nprobe=5 of lists=4"):
        index_shape({"vectors": 100, "width": 4, "index": "ivf", "lists": 4, "nprobe": 5}, "s")
    with pytest.raises(BadInput, match="no more lists than vectors"):
        index_shape({"vectors": 3, "width": 4, "index": "ivf", "lists": 4}, "s")


def test_nearest_is_the_same_however_many_are_looked_at_at_once() -> None:
    vectors, _ = clustered(100, 8)
    assert torch.equal(nearest(vectors, vectors[:7], at_once=9), nearest(vectors, vectors[:7]))

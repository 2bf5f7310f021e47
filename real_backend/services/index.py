"""Vector indexes: exact, and an inverted file that reads only the lists near a query."""

from __future__ import annotations

from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import normalize

SPREAD = 0.5
ROUNDS = 10
PER_LIST = 256
"""Vectors that k-means looks at for each list, at most."""


def clustered(vectors: int, width: int, seed: int = 0, more: int = 0) -> tuple[Tensor, Tensor]:
    """Unit vectors [vectors, width] in about one random cluster per sqrt(vectors), as embeddings are; and `more` of the
    same clusters that are not among them."""
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(max(1, round(vectors**0.5)), width, generator=generator)

    def drawn(count: int) -> Tensor:
        owners = torch.randint(len(centers), (count,), generator=generator)
        return normalize(centers[owners] + SPREAD * torch.randn(count, width, generator=generator), dim=-1)

    return drawn(vectors), drawn(more)


class Index(Protocol):
    """What a search pool asks. `vectors` [n, width] are the documents by their number."""

    vectors: Tensor

    @property
    def width(self) -> int: ...

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Scores and document numbers [queries, k], best first; k at most the number of vectors. What was not found is
        -1, at the end."""
        ...


class FlatIndex:
    """Exact nearest neighbours by inner product over all vectors (a brute-force index)."""

    def __init__(self, vectors: Tensor) -> None:
        self.vectors = vectors

    @property
    def width(self) -> int:
        return self.vectors.shape[1]

    @torch.inference_mode()
    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        best = (queries @ self.vectors.T).topk(min(k, len(self.vectors)), dim=-1)
        return best.values, best.indices


class IvfIndex:
    """An inverted file (Sivic & Zisserman, ICCV 2003; Jegou et al., 2011): vectors lie in lists around centres found by
    k-means, and a query is compared with those of the `nprobe` lists whose centres are nearest to it."""

    def __init__(self, vectors: Tensor, lists: int, nprobe: int, seed: int = 0) -> None:
        self.vectors, self.nprobe = vectors, nprobe
        self.centers = k_means(vectors, lists, seed)
        owners = nearest(vectors, self.centers)
        self.order = owners.argsort(stable=True)
        self.sorted = vectors[self.order]
        ends = owners.bincount(minlength=lists).cumsum(0).tolist()
        self.spans = list(pairwise([0, *ends]))

    @property
    def width(self) -> int:
        return self.vectors.shape[1]

    @torch.inference_mode()
    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        k = min(k, len(self.vectors))
        probes = (queries @ self.centers.T).topk(self.nprobe, dim=-1).indices.tolist()
        found = [self._probe(query, lists, k) for query, lists in zip(queries, probes, strict=True)]
        return torch.stack([scores for scores, _ in found]), torch.stack([documents for _, documents in found])

    def _probe(self, query: Tensor, lists: list[int], k: int) -> tuple[Tensor, Tensor]:
        spans = [self.spans[one] for one in lists]
        scores = torch.cat([self.sorted[a:b] @ query for a, b in spans])
        numbers = torch.cat([self.order[a:b] for a, b in spans])
        best = scores.topk(min(k, len(scores)))
        missing = k - len(best.values)
        values = torch.cat((best.values, best.values.new_full((missing,), -torch.inf)))
        return values, torch.cat((numbers[best.indices], numbers.new_full((missing,), -1)))


@torch.inference_mode()
def k_means(vectors: Tensor, lists: int, seed: int = 0, rounds: int = ROUNDS) -> Tensor:
    """Unit centres [lists, width] by inner product (spherical k-means; Dhillon & Modha 2001), from random vectors on; a
    list that nobody is near to keeps its centre."""
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randperm(len(vectors), generator=generator)[: PER_LIST * lists].to(vectors.device)
    points = vectors[picks]
    centers = points[:lists]
    for _ in range(rounds):
        owners = nearest(points, centers)
        sums = torch.zeros_like(centers).index_add_(0, owners, points)
        empty = owners.bincount(minlength=lists)[:, None] == 0
        centers = torch.where(empty, centers, normalize(sums, dim=-1))
    return centers


def nearest(vectors: Tensor, centers: Tensor, at_once: int = 8192) -> Tensor:
    """The number of the nearest centre of each vector."""
    return torch.cat([(part @ centers.T).argmax(-1) for part in torch.split(vectors, at_once)])


def recall(found: Tensor, exact: Tensor) -> float:
    """Mean share of the documents of `exact` [queries, k] that are in `found` [queries, k]."""
    return float((exact[:, :, None] == found[:, None, :]).any(-1).float().mean())

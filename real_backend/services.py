"""Embedding and vector search: the work of batch services, for real."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor
from torch.nn.functional import normalize

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import Script
from airi_sim.core.types import Job, Plan
from real_backend.clock import Stopwatch
from real_backend.model import Model, encode
from real_backend.results import Documents, Results, Vector

SPREAD = 0.5


class EmbedWork:
    """Texts to unit vectors, one a job; all jobs of a plan in one forward."""

    detailed = False

    def __init__(self, model: Model, script: Script, results: Results) -> None:
        self.model = model
        self.script = script
        self.results = results
        self._texts: list[list[int]] = []

    def prepare(self, plan: Plan) -> None:
        vocabulary = self.model.spec.vocab
        self._texts = [
            self.results.prompt(job, self.script.prompt(job, vocabulary), vocabulary) for job, _ in plan.slices
        ]

    def run(self, plan: Plan, watch: Stopwatch) -> Tensor:
        return embed(self.model, self._texts, watch)

    def commit(self, plan: Plan, found: Tensor) -> list[Job]:
        jobs = [job for job, _ in plan.slices]
        for job, vector in zip(jobs, found, strict=True):
            self.results.put(job, Vector(vector))
        return jobs

    def drop(self, job: int) -> None:
        """Nothing is kept between plans."""


@torch.inference_mode()
def embed(model: Model, texts: list[list[int]], watch: Stopwatch) -> Tensor:
    """Unit vectors [texts, hidden] of token ids."""
    tokens = torch.tensor(list(chain.from_iterable(texts)), device=model.device)
    watch.lap()
    vectors = encode(model, tokens, [len(text) for text in texts])
    watch.lap()
    return vectors


class FlatIndex:
    """Exact nearest neighbours by inner product over all vectors (a brute-force index).

    Vectors are random but clustered, about one cluster per sqrt(vectors), and normalised, as embeddings are.
    """

    def __init__(self, vectors: int, width: int, seed: int = 0, device: str = "cpu") -> None:
        generator = torch.Generator().manual_seed(seed)
        centers = torch.randn(max(1, round(vectors**0.5)), width, generator=generator)
        owners = torch.randint(len(centers), (vectors,), generator=generator)
        points = centers[owners] + SPREAD * torch.randn(vectors, width, generator=generator)
        self.vectors = normalize(points, dim=-1).to(device)

    @property
    def width(self) -> int:
        return self.vectors.shape[1]

    @torch.inference_mode()
    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Scores and document numbers [queries, k], best first; k at most the number of vectors."""
        best = (queries @ self.vectors.T).topk(min(k, len(self.vectors)), dim=-1)
        return best.values, best.indices


class SearchWork:
    """The documents nearest to the embedding of the first input of each job; `job.items` of them.

    A job without an embedding among its inputs asks for a vector of the index, chosen by its id.
    """

    detailed = False

    def __init__(self, index: FlatIndex, chunk_tokens: int, results: Results) -> None:
        self.index = index
        self.chunk_tokens = chunk_tokens
        self.results = results
        self._queries = index.vectors[:0]

    def prepare(self, plan: Plan) -> None:
        self._queries = torch.stack([self._query(job) for job, _ in plan.slices])

    def run(self, plan: Plan, watch: Stopwatch) -> list[list[int]]:
        watch.lap()
        _, found = self.index.search(self._queries, max(job.items for job, _ in plan.slices))
        watch.lap()
        documents: list[list[int]] = found.tolist()
        return documents

    def commit(self, plan: Plan, found: list[list[int]]) -> list[Job]:
        jobs = [job for job, _ in plan.slices]
        for job, documents in zip(jobs, found, strict=True):
            self.results.put(job, Documents(documents[: job.items], self.chunk_tokens))
        return jobs

    def drop(self, job: int) -> None:
        """Nothing is kept between plans."""

    def _query(self, job: Job) -> Tensor:
        vectors = [result.values for name in job.inputs if isinstance(result := self.results.get(name), Vector)]
        if not vectors:
            return self.index.vectors[job.id % len(self.index.vectors)]
        if len(vectors[0]) != self.index.width:
            raise BadInput(
                f"the index holds vectors of width {self.index.width} but the query has {len(vectors[0])}: set the "
                f"service's width to {len(vectors[0])}, the hidden size of the embedding model."
            )
        return vectors[0].to(self.index.vectors)

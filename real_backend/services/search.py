"""Vector search as a service, and how much of what it should find it does find."""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

import torch
from torch import Tensor

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import Script
from airi_sim.core.types import Job
from airi_sim.hardware.service import IndexShape
from real_backend.clock import Stopwatch
from real_backend.results import Documents, Result, Results, Vector
from real_backend.services.index import FlatIndex, Index, IvfIndex, clustered, recall
from real_backend.services.work import Task

SAMPLE = 256


class Asked(NamedTuple):
    """A query of the run, how many documents it wanted, and those it found."""

    query: Tensor
    k: int
    documents: list[int]


class Searcher:
    """The documents nearest to the embedding of the first input of each job; `job.items` of them.

    A job without an embedding among its inputs asks for a vector of the index, chosen by its id. Of the queries of the
    run a random sample is kept, by which an approximate index is judged afterwards.
    """

    def __init__(self, index: Index, chunk_tokens: int, results: Results, apart: Tensor | None = None) -> None:
        self.index = index
        self.chunk_tokens = chunk_tokens
        self.results = results
        self.apart = apart
        self.asked: list[Asked] = []
        self.count = 0
        self._random = Random(0)

    def read(self, job: Job, script: Script) -> Tensor:
        vectors = [one.values for name in job.inputs if isinstance(one := self.results.get(name), Vector)]
        if not vectors:
            return self.invent(job)
        if len(vectors[0]) != self.index.width:
            raise BadInput(
                f"the index holds vectors of width {self.index.width} but the query has {len(vectors[0])}: set the "
                f"service's width to {len(vectors[0])}, the hidden size of the embedding model."
            )
        return vectors[0].to(self.index.vectors)

    def invent(self, job: Job) -> Tensor:
        return self.index.vectors[job.id % len(self.index.vectors)]

    def serve(self, tasks: list[Task], watch: Stopwatch) -> list[Result]:
        queries = torch.stack([task.given for task in tasks])
        watch.lap()
        _, found = self.index.search(queries, max(task.job.items for task in tasks))
        watch.lap()
        kept = [
            [document for document in documents[: task.job.items] if document >= 0]
            for task, documents in zip(tasks, found.tolist(), strict=True)
        ]
        for task, documents in zip(tasks, kept, strict=True):
            if task.job.request >= 0:
                self._keep(Asked(task.given, task.job.items, documents))
        return [Documents(documents, self.chunk_tokens) for documents in kept]

    def _keep(self, asked: Asked) -> None:
        """Every query has the same chance to be in the sample (reservoir sampling)."""
        self.count += 1
        if len(self.asked) < SAMPLE:
            self.asked.append(asked)
        elif (place := self._random.randrange(self.count)) < SAMPLE:
            self.asked[place] = asked

    def findings(self) -> dict[str, Any]:
        """Recall against a flat index, of an index that is not one: of the queries of the run, and of vectors that lie
        in the clusters of the index without being in it."""
        if isinstance(self.index, FlatIndex):
            return {}
        exact, found = FlatIndex(self.index.vectors), {}
        if self.asked:
            shares = [_share(exact, one) for one in self.asked]
            found = {"recall": sum(shares) / len(shares), "queries": len(shares)}
        if self.apart is not None:
            k = max((one.k for one in self.asked), default=10)
            near = recall(self.index.search(self.apart, k)[1], exact.search(self.apart, k)[1])
            found |= {"recall_clustered": near, "k": k}
        return found


def _share(exact: FlatIndex, asked: Asked) -> float:
    wanted = set(exact.search(asked.query[None], asked.k)[1][0].tolist())
    return len(wanted & set(asked.documents)) / len(wanted)


def build_index(shape: IndexShape, seed: int, device: str) -> tuple[Index, Tensor]:
    """The index that a pool describes, and vectors of its clusters that are not in it."""
    vectors, apart = (part.to(device) for part in clustered(shape.vectors, shape.width, seed, SAMPLE))
    return (IvfIndex(vectors, shape.lists, shape.nprobe, seed) if shape.lists else FlatIndex(vectors)), apart

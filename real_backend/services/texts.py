"""Services that read texts with an encoder: embedding, reranking, classification."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from airi_sim.core.protocols import Script
from airi_sim.core.types import Job
from real_backend.clock import Stopwatch
from real_backend.heads import Head, classify, score
from real_backend.model import Model, encode
from real_backend.results import Documents, Label, Result, Results, Rows, Vector, content
from real_backend.services.work import Task

Texts = list[list[int]]


class Embedder:
    """Texts to unit vectors, one a job."""

    def __init__(self, model: Model, results: Results) -> None:
        self.model = model
        self.results = results

    def read(self, job: Job, script: Script) -> list[int]:
        return prompt(job, script, self.model, self.results)

    def invent(self, job: Job) -> list[int]:
        return ascending(job.tokens, self.model)

    @torch.inference_mode()
    def serve(self, tasks: list[Task], watch: Stopwatch) -> list[Result]:
        texts = [task.given for task in tasks]
        tokens = packed(texts, self.model)
        watch.lap()
        vectors = encode(self.model, tokens, [len(text) for text in texts])
        watch.lap()
        return [Vector(vector) for vector in vectors]


class Classifier:
    """Texts to labels, one a job; the guard of a program."""

    def __init__(self, model: Model, head: Head, results: Results) -> None:
        self.model, self.head = model, head
        self.results = results

    def read(self, job: Job, script: Script) -> list[int]:
        return prompt(job, script, self.model, self.results)

    def invent(self, job: Job) -> list[int]:
        return ascending(job.tokens, self.model)

    @torch.inference_mode()
    def serve(self, tasks: list[Task], watch: Stopwatch) -> list[Result]:
        texts = [task.given for task in tasks]
        tokens = packed(texts, self.model)
        watch.lap()
        odds = classify(self.model, self.head, tokens, [len(text) for text in texts])
        watch.lap()
        return [Label(one.index(max(one)), tuple(one)) for one in odds.tolist()]


class Pairs:
    """What a reranker reads: a text for each document, the question before it, and what features add to its score."""

    def __init__(self, documents: Sequence[int], texts: Texts, chunk_tokens: int, bonus: Sequence[float] = ()) -> None:
        self.documents, self.texts, self.chunk_tokens = documents, texts, chunk_tokens
        self.bonus = bonus or [0.0] * len(texts)

    def best(self, scores: Sequence[float], most: int) -> Documents:
        """The documents in order of their scores, at most so many; of equals the first one found."""
        found = [own + more for own, more in zip(scores, self.bonus, strict=True)]
        order = sorted(range(len(found)), key=lambda i: -found[i])[:most]
        return Documents([self.documents[i] for i in order], self.chunk_tokens, [found[i] for i in order])


class Reranker:
    """Documents that a search found, in order of how relevant a cross encoder finds each beside the question.

    A call has `items` documents and reads as many tokens of each pair as its tokens allow; it keeps `budget` of them.
    Where features were looked up too, the product of the first row (the user) and of a document's row adds to its
    score. Without a search among its inputs a job ranks documents 0, 1, ... .
    """

    def __init__(self, model: Model, head: Head, chunk_tokens: int, results: Results) -> None:
        self.model, self.head = model, head
        self.chunk_tokens = chunk_tokens
        self.results = results

    def read(self, job: Job, script: Script) -> Pairs:
        inputs = [self.results.get(name) for name in job.inputs]
        found = next((one for one in inputs if isinstance(one, Documents)), None)
        documents = list(found.ids if found else range(job.items))[: job.items]
        chunk = found.chunk_tokens if found else self.chunk_tokens
        rows = next((one.values for one in inputs if isinstance(one, Rows)), None)
        question, vocabulary = script.prompt(job, self.model.spec.vocab), self.model.spec.vocab
        pair = max(1, job.prompt // job.items)
        question = question[: max(1, pair - chunk)]
        texts = [(question + content(document, chunk, vocabulary))[:pair] for document in documents]
        return Pairs(documents, texts, chunk, affinity(rows, len(documents)) if rows is not None else ())

    def invent(self, job: Job) -> Pairs:
        texts = [ascending(max(1, job.tokens // job.items), self.model) for _ in range(job.items)]
        return Pairs(range(job.items), texts, self.chunk_tokens)

    @torch.inference_mode()
    def serve(self, tasks: list[Task], watch: Stopwatch) -> list[Result]:
        texts = [text for task in tasks for text in task.given.texts]
        tokens = packed(texts, self.model)
        watch.lap()
        found = score(self.model, self.head, tokens, [len(text) for text in texts]).tolist() if texts else []
        scores = iter(found)
        watch.lap()
        return [task.given.best([next(scores) for _ in task.given.texts], task.job.budget) for task in tasks]


def affinity(rows: Tensor, documents: int) -> list[float]:
    """Scaled products of the first row with each of the next ones, one a document."""
    found: list[float] = (rows[1 : 1 + documents] @ rows[0] / rows.shape[1] ** 0.5).tolist()
    return found + [0.0] * (documents - len(found))


def prompt(job: Job, script: Script, model: Model, results: Results) -> list[int]:
    """The text of a job, its inputs at the end; images say nothing here."""
    vocabulary = model.spec.vocab
    return [max(0, token) for token in results.prompt(job, script.prompt(job, vocabulary), vocabulary)]


def ascending(tokens: int, model: Model) -> list[int]:
    """Some text of so many tokens."""
    return [token % model.spec.vocab for token in range(tokens)]


def packed(texts: Texts, model: Model) -> Tensor:
    """Token ids of all texts one after another."""
    return torch.tensor(list(chain.from_iterable(texts)), dtype=torch.int64, device=model.device)

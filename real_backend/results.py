"""What jobs leave behind for later jobs of the same request, shared by the executors of one backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from airi_sim.core.types import JOBS_PER_REQUEST, Job

LIMIT = 65536
IMAGE_TOKENS = 1 << 20
"""More than any job has."""


class Result(Protocol):
    """What one job produced, as the tokens it adds to the prompt of a job that names it in `inputs`."""

    def tokens(self, vocabulary: int) -> list[int]: ...


@dataclass(frozen=True)
class Vector:
    """An embedding [width]; searches take it, prompts do not."""

    values: Tensor

    def tokens(self, vocabulary: int) -> list[int]:
        return []


@dataclass(frozen=True)
class Text:
    """Generated token ids."""

    ids: Sequence[int]

    def tokens(self, vocabulary: int) -> list[int]:
        return [token % vocabulary for token in self.ids]


@dataclass(frozen=True)
class Documents:
    """Chunks found in an index: document i always holds the same `chunk_tokens` tokens. A reranker adds its scores."""

    ids: Sequence[int]
    chunk_tokens: int
    scores: Sequence[float] = ()

    def tokens(self, vocabulary: int) -> list[int]:
        return [token for document in self.ids for token in content(document, self.chunk_tokens, vocabulary)]


@dataclass(frozen=True)
class Label:
    """What a classifier found: the likeliest label, and the probability of each."""

    number: int
    odds: tuple[float, ...]

    def tokens(self, vocabulary: int) -> list[int]:
        return []


@dataclass(frozen=True)
class Rows:
    """Features [keys, width]; rerankers take them, prompts do not."""

    values: Tensor

    def tokens(self, vocabulary: int) -> list[int]:
        return []


@dataclass(frozen=True)
class Seen:
    """What a vision tower made of the images of a `job`: image tokens [tokens, width].

    Ids of tokens in a prompt are numbers from 0; an image token stands there as a negative one that says which it is
    (`seen_in`), whatever the vocabulary is.
    """

    job: int
    values: Tensor

    def tokens(self, vocabulary: int) -> list[int]:
        first = self.job * IMAGE_TOKENS
        return [-1 - token for token in range(first, first + len(self.values))]


def seen_in(results: Results, token: int) -> Tensor:
    """The image token [width] that a negative id stands for; KeyError if its request is over."""
    job, place = divmod(-1 - token, IMAGE_TOKENS)
    found = results.get(job)
    if not isinstance(found, Seen):
        raise KeyError(f"job {job} left no images")
    return found.values[place]


def content(document: int, tokens: int, vocabulary: int) -> list[int]:
    """The token ids of a document: a function of its number alone."""
    found: list[int] = np.random.default_rng(document).integers(vocabulary, size=tokens).tolist()
    return found


class Results:
    """Results by job, kept until `release(request)` because several later jobs may name the same one.

    Should nobody release, the requests heard of least recently go when there are more than `limit`. `images` counts
    results with image tokens.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self.images = 0
        self._kept: dict[int, dict[int, Result]] = {}

    def __len__(self) -> int:
        return sum(len(results) for results in self._kept.values())

    def put(self, job: Job, result: Result) -> None:
        """Called when a job is over."""
        results = self._kept.pop(job.request, {})
        results[job.id] = result
        self._kept[job.request] = results
        self.images += isinstance(result, Seen)
        if len(self._kept) > self.limit:
            self.release(next(iter(self._kept)))

    def get(self, job: int) -> Result | None:
        """The result of a job by id, None if it left none."""
        return self._kept.get(job // JOBS_PER_REQUEST, {}).get(job)

    def release(self, request: int) -> None:
        """Called when a request is over."""
        results = self._kept.pop(request, {})
        if self.images:
            self.images -= sum(isinstance(result, Seen) for result in results.values())

    def prompt(self, job: Job, own: list[int], vocabulary: int) -> list[int]:
        """`own` prompt of the job with its end replaced by what its inputs add: the total stays `job.prompt`, and at
        least one token stays its own."""
        results = [result for name in job.inputs if (result := self.get(name)) is not None]
        added = [token for result in results for token in result.tokens(vocabulary)][: len(own) - 1]
        return own[: len(own) - len(added)] + added

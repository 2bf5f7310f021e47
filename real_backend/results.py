"""What jobs leave behind for later jobs of the same request, shared by the executors of one backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from airi_sim.core.types import JOBS_PER_REQUEST, Job

LIMIT = 65536


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
    """Chunks found in an index: document i always holds the same `chunk_tokens` tokens."""

    ids: Sequence[int]
    chunk_tokens: int

    def tokens(self, vocabulary: int) -> list[int]:
        return [token for document in self.ids for token in content(document, self.chunk_tokens, vocabulary)]


def content(document: int, tokens: int, vocabulary: int) -> list[int]:
    """The token ids of a document: a function of its number alone."""
    found: list[int] = np.random.default_rng(document).integers(vocabulary, size=tokens).tolist()
    return found


class Results:
    """Results by job, kept until `release(request)` because several later jobs may name the same one.

    Should nobody release, the requests heard of least recently go when there are more than `limit`.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self._kept: dict[int, dict[int, Result]] = {}

    def __len__(self) -> int:
        return sum(len(results) for results in self._kept.values())

    def put(self, job: Job, result: Result) -> None:
        """Called when a job is over."""
        results = self._kept.pop(job.request, {})
        results[job.id] = result
        self._kept[job.request] = results
        if len(self._kept) > self.limit:
            del self._kept[next(iter(self._kept))]

    def get(self, job: int) -> Result | None:
        """The result of a job by id, None if it left none."""
        return self._kept.get(job // JOBS_PER_REQUEST, {}).get(job)

    def release(self, request: int) -> None:
        """Called when a request is over."""
        self._kept.pop(request, None)

    def prompt(self, job: Job, own: list[int], vocabulary: int) -> list[int]:
        """`own` prompt of the job with its end replaced by what its inputs add: the total stays `job.prompt`, and at
        least one token stays its own."""
        results = [result for name in job.inputs if (result := self.get(name)) is not None]
        added = [token for result in results for token in result.tokens(vocabulary)][: len(own) - 1]
        return own[: len(own) - len(added)] + added

"""The tokens of jobs under way, by job: they outlive preemption, hand-over and the death of a server."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from airi_sim.core.protocols import Script
from airi_sim.core.types import JOBS_PER_REQUEST, Job, Row
from real_backend.batch import Segment
from real_backend.results import Results, Text


@dataclass(slots=True)
class Sequence:
    """Known token ids: the prompt (`prompt` many), then what was generated; it stops at `limit` tokens in all."""

    tokens: array[int]
    prompt: int
    limit: int


class Sequences:
    """Shared by the generate executors of a backend, so that any replica can go on where another one stopped.

    `finished`, if somebody makes it a dictionary, keeps what stopped, by job.
    """

    def __init__(self, results: Results) -> None:
        self.results = results
        self._open: dict[int, Sequence] = {}
        self.finished: dict[int, Sequence] | None = None

    def __len__(self) -> int:
        return len(self._open)

    def open(self, job: Job, script: Script, vocabulary: int) -> Sequence:
        """The sequence of a job; one not seen before gets its prompt from the script and from its inputs."""
        known = self._open.get(job.id)
        if known is None:
            prompt = self.results.prompt(job, script.prompt(job, vocabulary), vocabulary)
            limit = len(prompt) + min(script.output_tokens(job), job.budget)
            known = self._open[job.id] = Sequence(array("q", prompt), len(prompt), limit)
        return known

    def segment(self, row: Row) -> Segment:
        """What a row of a plan asks for. The job must be open; ValueError if the row goes beyond its known tokens."""
        job, start, tokens, table = row
        known = self._open[job.id].tokens
        stop = start + tokens
        if stop == job.tokens:
            del known[stop:]  # only if the job was sent back to its prompt: what it had generated is void
        if stop > len(known):
            raise ValueError(f"job {job.id} has {len(known)} known tokens, but a row asks for {start} to {stop}")
        return Segment(start, known[start:stop], table, stop == len(known))

    def extend(self, job: Job, token: int) -> bool:
        """One more token; True if the job stops with it, and is forgotten. Nothing happens if it was dropped before."""
        sequence = self._open.get(job.id)
        if sequence is None:
            return False
        sequence.tokens.append(token)
        if len(sequence.tokens) < sequence.limit:
            return False
        del self._open[job.id]
        if self.finished is not None:
            self.finished[job.id] = sequence
        self.results.put(job, Text(sequence.tokens[sequence.prompt :]))
        return True

    def drop(self, job: int) -> None:
        """Forget a job (by id) that was cancelled."""
        self._open.pop(job, None)

    def release(self, request: int) -> None:
        """Forget all jobs of a request that is over."""
        for job in [job for job in self._open if job // JOBS_PER_REQUEST == request]:
            del self._open[job]

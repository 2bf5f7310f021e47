"""The script of a run: true output lengths and the content of prompts, for executors only (law 2)."""

from __future__ import annotations

import numpy as np

from airi_sim.core.types import JOBS_PER_REQUEST, Item, Job, Request

_STEP = np.uint64(0x9E3779B97F4A7C15)
_MASK = (1 << 64) - 1


class LengthScript:
    """Output lengths as the workload says them, by request; every generate call of a request gets the same one.

    Prompts are pseudo-random but fixed: the tokens under a prefix id depend on the id alone (`hash_block` tokens an
    id), the rest on the seed, the request and the index of the call. Implements Script.
    """

    def __init__(self, hash_block: int = 512, seed: int = 0) -> None:
        self.hash_block = hash_block
        self.seed = seed
        self._lengths: dict[int, int] = {}

    def learn(self, item: Item) -> None:
        """Called for every request before it arrives."""
        request, output_tokens = item
        self._lengths[request.id] = output_tokens

    def forget(self, request: Request) -> None:
        """Called when a request is over, so that memory follows what is in flight."""
        self._lengths.pop(request.id, None)

    def output_tokens(self, job: Job) -> int:
        """Tokens until the job stops: its true length, or its budget if that is less."""
        length = self._lengths[job.request]
        return length if length < job.budget else job.budget

    def prompt(self, job: Job, vocabulary: int) -> list[int]:
        """The `job.prompt` token ids, each in 0 .. vocabulary - 1."""
        shared = _blocks(job.prefix, self.hash_block)[: job.prompt]
        own = noise(key(self.seed, job.request, job.id % JOBS_PER_REQUEST), job.prompt - len(shared))
        tokens: list[int] = (np.concatenate((shared, own)) % np.uint64(vocabulary)).tolist()
        return tokens


def uniforms(seed: int, *columns: np.ndarray) -> np.ndarray:
    """A number in [0, 1) for each row of some columns of whole numbers: the same ones for the same row."""
    keys = key(seed)
    for column in columns:
        keys = _mix(keys ^ column.astype(np.uint64))
    return (keys >> np.uint64(11)) * 2.0**-53


def _blocks(ids: tuple[int, ...], size: int) -> np.ndarray:
    """64-bit noise of the blocks of tokens that ids stand for, one after the other."""
    return noise(_mix(np.array(ids, dtype=np.int64).astype(np.uint64)), size)


def noise(keys: np.ndarray, count: int) -> np.ndarray:
    """`count` numbers for each key."""
    return _mix(keys[:, None] + np.arange(1, count + 1, dtype=np.uint64) * _STEP).ravel()


def key(*numbers: int) -> np.ndarray:
    """One key for several numbers, as an array of one (arrays wrap around at 64 bits without a warning)."""
    key = np.zeros(1, dtype=np.uint64)
    for number in numbers:
        key = _mix(key ^ np.uint64(number & _MASK))
    return key


def _mix(x: np.ndarray) -> np.ndarray:
    """The output function of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), as arrays: a hash, not a stream, so that
    any block of any prompt can be made alone."""
    x = x + _STEP
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x

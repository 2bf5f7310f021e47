"""What the runtime's process and its workers say to each other: whole messages over a socket, each with a time-out."""

from __future__ import annotations

import pickle
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from socket import socket
from struct import Struct
from typing import Any, NamedTuple

from airi_sim.core.types import Copies, Copy
from airi_sim.hardware.deployment import Deployment
from real_backend.batch import Segment
from real_backend.clock import Split

LENGTH = Struct("<q")
HEAD = 5
NO_COPIES = [(array("q"), array("q"))] * 3


@dataclass(frozen=True)
class Task:
    """What a worker is to be: rank `rank` of the `ranks` processes of one replica of `pool`.

    card      number of its CUDA device
    caches    KV blocks by place, on the device and on the host: the replica's own, and those of calibration passes
    meeting   a file where several ranks meet
    attention the name of the attention backend
    """

    pool: Deployment
    device: str
    card: int
    precision: str
    seed: int
    weights: Mapping[str, str]
    clock: str
    caches: tuple[tuple[int, int], ...]
    rank: int = 0
    ranks: int = 1
    meeting: str = ""
    attention: str = "auto"


class Ready(NamedTuple):
    """The model is loaded, which took so much CPU time, imports included."""

    seconds: float


class Done(NamedTuple):
    """A pass is over: what the runner found, and how long it took by the worker's clock."""

    found: Any
    split: Split


class Refused(NamedTuple):
    """The task cannot be done as it was given; the sentence says why."""

    reason: str


class Parted(NamedTuple):
    """A collective failed, because another rank is gone."""

    reason: str


class Broken(NamedTuple):
    """Code of the worker failed, with this traceback: a mistake, not a fault of the machine."""

    trace: str


Answer = Ready | Done | Refused | Parted | Broken


class Channel:
    """One end of a stream socket. Nothing here blocks for longer than it is told to: a peer that was stopped neither
    reads nor answers."""

    def __init__(self, end: socket) -> None:
        self.end = end

    def fileno(self) -> int:
        """For whoever waits on several channels at once."""
        return self.end.fileno()

    def send(self, message: bytes, seconds: float | None = None) -> None:
        """TimeoutError if the peer does not take it within `seconds` (None: wait), OSError if it is gone."""
        self.end.settimeout(seconds)
        self.end.sendall(LENGTH.pack(len(message)) + message)

    def receive(self, seconds: float | None = None) -> bytes:
        """The next message; EOFError or OSError if the peer is gone, TimeoutError if it is silent for `seconds`."""
        self.end.settimeout(seconds)
        (length,) = LENGTH.unpack(self._exactly(LENGTH.size))
        return self._exactly(length)

    def answer(self, answer: Answer) -> None:
        """Send what a worker has to say."""
        self.send(pickle.dumps(answer, pickle.HIGHEST_PROTOCOL))

    def close(self) -> None:
        self.end.close()

    def _exactly(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            part = self.end.recv(size - len(parts))
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)


def encode(place: int, segments: Sequence[Segment], block_size: int, copies: Copies | None = None) -> bytes:
    """A pass over `segments` on the cache at `place`, as 64-bit numbers: the place, how many segments, and how many
    blocks to copy out, inside and back; of each segment its start, its tokens, its blocks and whether it samples; then
    all token ids, all blocks, and of each kind of copies the sources and the targets.

    Only the blocks that hold tokens by then are sent. The worker keeps no sequences, so a message says all there is to
    know of a pass, and any worker can go on with a job of one that died.
    """
    parts = [_ids(part) for part in copies or ()] or NO_COPIES
    numbers = array("q", (place, len(segments), *[len(sources) for sources, _ in parts]))
    tokens, blocks = array("q"), array("q")
    for start, ids, table, sample in segments:
        used = -(-(start + len(ids)) // block_size)
        numbers.extend((start, len(ids), used, sample))
        tokens.extend(ids)
        blocks.extend(table[:used])
    numbers += tokens + blocks
    for sources, targets in parts:
        numbers += sources + targets
    return numbers.tobytes()


def _ids(part: Sequence[Copy]) -> tuple[array[int], array[int]]:
    """All sources and all targets."""
    flat = chain.from_iterable
    return array("q", flat(copy.source for copy in part)), array("q", flat(copy.target for copy in part))


def decode(message: bytes) -> tuple[int, list[Segment], Copies | None]:
    """The place, the segments and the copies of `encode`."""
    numbers = array("q", message)
    place, count, *sizes = numbers[:HEAD]
    token = HEAD + 4 * count
    block = token + sum(numbers[HEAD + 1 : token : 4])
    segments = []
    for at in range(HEAD, token, 4):
        start, ids, used, sample = numbers[at : at + 4]
        segments.append(Segment(start, numbers[token : token + ids], numbers[block : block + used], bool(sample)))
        token, block = token + ids, block + used
    return place, segments, _copies(numbers[block:], sizes) if any(sizes) else None


def _copies(numbers: array[int], sizes: Sequence[int]) -> Copies:
    parts, at = [], 0
    for size in sizes:
        parts.append((Copy(None, size, numbers[at : at + size], numbers[at + size : at + 2 * size]),))
        at += 2 * size
    return Copies(*parts)

"""How long torch took: thread time on CPU, device events on CUDA, or the wall; and what makes times repeatable."""

from __future__ import annotations

import ctypes
import gc
from functools import cache
from time import perf_counter, thread_time
from typing import Any, NamedTuple, Protocol

import torch

from airi_sim.core.errors import unknown

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
CLOCKS = ("work", "wall")


class Clock(Protocol):
    """Marks are taken while work is under way; what lies between them may be asked for when it is over."""

    def mark(self) -> Any: ...

    def seconds(self, first: Any, last: Any) -> float: ...


class ThreadClock:
    """CPU time of this thread: what the work costs, whoever else uses the machine. For torch with one thread."""

    def mark(self) -> float:
        return thread_time()

    def seconds(self, first: float, last: float) -> float:
        return last - first


class EventClock:
    """CUDA events: time on the device from mark to mark, waiting for the host included."""

    def mark(self) -> torch.cuda.Event:
        event: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def seconds(self, first: torch.cuda.Event, last: torch.cuda.Event) -> float:
        last.synchronize()
        return float(first.elapsed_time(last)) / 1e3


class WallClock:
    """Time that passes for everybody, after the device has done what was asked of it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def mark(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return perf_counter()

    def seconds(self, first: float, last: float) -> float:
        return last - first


def clock(kind: str, device: torch.device) -> Clock:
    """The clock named `work` or `wall` for a device; BadInput names the known ones."""
    if kind not in CLOCKS:
        raise unknown("backend.clock", kind, CLOCKS)
    if kind == "wall":
        return WallClock(device)
    return EventClock() if device.type == "cuda" else ThreadClock()


class Split(NamedTuple):
    """Seconds of one pass by the clock (prep, forward, sample), and by the wall and the CPU whatever the clock is."""

    prep_s: float
    forward_s: float
    sample_s: float
    wall_s: float
    cpu_s: float

    @property
    def seconds(self) -> float:
        return self.prep_s + self.forward_s + self.sample_s


class Stopwatch:
    """Started when built; `lap()` after preparation and after the forward, `stop()` at the end."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.wall, self.cpu = perf_counter(), thread_time()
        self.marks = [clock.mark()]

    def lap(self) -> None:
        self.marks.append(self.clock.mark())

    def stop(self) -> Split:
        self.lap()
        start, ready, computed, end = self.marks
        between = self.clock.seconds
        parts = between(start, ready), between(ready, computed), between(computed, end)
        return Split(*parts, wall_s=perf_counter() - self.wall, cpu_s=thread_time() - self.cpu)


def settle() -> None:
    """Called when executors are ready: one thread, memory that stays mapped, no collection of what is here to stay."""
    torch.set_num_threads(1)
    keep_memory()
    gc.collect()
    gc.freeze()


@cache
def keep_memory() -> bool:
    """Let glibc keep freed memory: else every temporary of some MB is mapped and zeroed anew (2.5 times slower)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, 1 << 30) and mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1))

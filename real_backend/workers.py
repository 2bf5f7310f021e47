"""The processes of a replica, seen from the runtime's process: started, asked, heard and ended together."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from math import inf
from multiprocessing.connection import wait
from pathlib import Path
from shutil import rmtree
from socket import socketpair
from tempfile import mkdtemp
from time import perf_counter
from typing import Any
from weakref import finalize

from airi_sim.core.errors import BadInput
from real_backend.channel import Answer, Broken, Channel, Done, Parted, Ready, Refused, Task
from real_backend.clock import Split

START_S = 600.0
"""Loading a model takes at most so long."""
PROGRAM = "from real_backend.worker import main; main()"


class Lost(Exception):
    """A worker is gone, or does not answer; the sentence says which."""


class Crew:
    """The worker processes of one replica: one, or one for each rank of its tensor parallelism.

    All get the same messages, and a pass is over when all have answered. If one is lost the others are of no use: its
    heads are missing. So whenever Lost is raised, all of them are gone, and `begin` may start others in their place.

    A worker ends when its channel closes, so none outlives the runtime's process; those that were stopped are killed.
    """

    def __init__(self, name: str, tasks: Sequence[Task], hang_s: float) -> None:
        self.name = name
        self.tasks = tasks
        self.hang_s = hang_s
        self.due = inf
        """When (by `perf_counter`) it counts as hung; inf while nothing is asked of it."""
        self.loading = False
        self.channels: list[Channel] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self._answers: dict[Any, Answer] = {}
        self._release: finalize[Any, Any] | None = None

    def begin(self) -> None:
        """Start the processes, which then load; `hear` tells when they are ready."""
        folder = Path(mkdtemp(prefix="airi-workers-")) if len(self.tasks) > 1 else None
        for _ in self.tasks:
            ours, theirs = socketpair()
            with theirs:
                self.processes.append(_spawn(theirs.fileno()))
            self.channels.append(Channel(ours))
        self._release = finalize(self, _end, self.processes, self.channels, folder)
        self.loading = True
        tasks = [replace(task, meeting=str(folder / "meeting")) for task in self.tasks] if folder else self.tasks
        self._ask([pickle.dumps(task) for task in tasks], START_S)

    def end(self) -> None:
        """Kill what is left of them."""
        if self._release is not None:
            self._release()
        self.channels, self.processes, self._answers = [], [], {}
        self.loading, self.due = False, inf

    def ask(self, message: bytes) -> None:
        """Give all of them the same pass to do. Lost if one does not take it."""
        self._ask([message] * len(self.channels), self.hang_s)

    def hear(self) -> list[Answer] | None:
        """What they answered, in order of rank, as soon as all have; None before. Does not wait. Lost if one is gone,
        or late."""
        heard: list[Any] = wait(self._silent(), 0)
        for channel in heard:
            self._answers[channel] = self._receive(channel)
        if self.channels and len(self._answers) == len(self.channels):
            answers = [self._answers[channel] for channel in self.channels]
            self._answers, self.loading, self.due = {}, False, inf
            return [self._sound(answer) for answer in answers]
        if perf_counter() >= self.due:
            raise self._lost(f"a worker of {self.name} did not answer for {self.hang_s:g} s")
        return None

    def answers(self) -> list[Answer]:
        """What they answered, waited for."""
        while (heard := self.hear()) is None:
            wait(self._silent(), self.due - perf_counter())
        return heard

    def _silent(self) -> list[Any]:
        """Channels of those that have not answered."""
        return [channel for channel in self.channels if channel not in self._answers]

    def ready(self) -> float:
        """Wait until they have loaded; the CPU seconds that took the slowest (0 if they had before)."""
        if not self.loading:
            return 0.0
        return max(answer.seconds for answer in self.answers() if isinstance(answer, Ready))

    def _ask(self, messages: Sequence[bytes], seconds: float) -> None:
        if not self.channels:
            raise self._lost(f"no worker of {self.name} is left")
        self.due = perf_counter() + seconds
        for channel, message in zip(self.channels, messages, strict=True):
            try:
                channel.send(message, seconds)
            except OSError as error:
                raise self._lost(self._fate(channel)) from error

    def _receive(self, channel: Channel) -> Answer:
        try:
            answer: Answer = pickle.loads(channel.receive(self.hang_s))
        except (EOFError, OSError) as error:
            raise self._lost(self._fate(channel)) from error
        return answer

    def _sound(self, answer: Answer) -> Answer:
        if isinstance(answer, Refused):
            raise BadInput(answer.reason)
        if isinstance(answer, Broken):
            raise RuntimeError(f"a worker of {self.name} failed:\n{answer.trace}")
        if isinstance(answer, Parted):
            raise self._lost(f"a worker of {self.name} lost its peers ({answer.reason})")
        return answer

    def _lost(self, sentence: str) -> Lost:
        """A crew that lost a worker is over: an answer that comes after all must not pass for that of a later pass."""
        self.end()
        return Lost(sentence)

    def _fate(self, channel: Channel) -> str:
        """What became of the process at the other end of a channel that failed."""
        process = self.processes[self.channels.index(channel)]
        try:
            code = process.wait(1.0)
        except subprocess.TimeoutExpired:
            return f"a worker of {self.name} does not take messages"
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"worker {process.pid} of {self.name} {how}"


def slowest(answers: Sequence[Answer]) -> tuple[Any, Split]:
    """What the first rank found, and the time of the rank that took longest."""
    done = [answer for answer in answers if isinstance(answer, Done)]
    return done[0].found, max((answer.split for answer in done), key=lambda split: split.seconds)


def _spawn(fileno: int) -> subprocess.Popen[bytes]:
    """A fresh interpreter (a forked one may deadlock in torch), in a process group of its own: Ctrl-C is for us."""
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(fileno), str(os.getpid())],
        pass_fds=[fileno],
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.DEVNULL,
        process_group=0,
    )


def _end(processes: list[subprocess.Popen[bytes]], channels: list[Channel], folder: Path | None) -> None:
    for channel in channels:
        channel.close()
    for process in processes:
        process.kill()
        process.wait()
    if folder is not None:
        rmtree(folder, ignore_errors=True)

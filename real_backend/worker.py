"""What runs in a worker process: one model on one device, or one rank's share of it, and passes as they come."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
from collections.abc import Callable
from functools import partial
from socket import socket
from time import process_time
from traceback import format_exc

import torch
from torch import Tensor

from airi_sim.core.errors import BadInput
from real_backend import clock as clocks
from real_backend import parallel
from real_backend.channel import Answer, Broken, Channel, Done, Parted, Ready, Refused, Task, decode
from real_backend.clock import Stopwatch
from real_backend.library import Library
from real_backend.model import Model

PR_SET_PDEATHSIG = 1


class Worker:
    """The runners of one task, by place, and its clock."""

    def __init__(self, task: Task) -> None:
        if task.device == "cuda":
            torch.cuda.set_device(task.card)
        library = library_of(task)
        library.images = partial(refuse_images, task.pool.name)
        self.clock = (parallel.clock if task.ranks > 1 else clocks.clock)(task.clock, library.device)
        self.runners = [library.runner(task.pool, *blocks) for blocks in task.caches]
        clocks.settle()

    def run(self, message: bytes) -> Done:
        """Do one pass."""
        place, segments, copies = decode(message)
        runner = self.runners[place]
        watch = Stopwatch(self.clock)
        if copies is not None:
            runner.cache.copy(copies)
        found = runner.run(segments, watch)
        return Done(found, watch.stop())


def refuse_images(pool: str, _model: Model, tokens: Tensor) -> None:
    """No token of a pass is one of an image, else BadInput: what its number stands for only the runtime's process
    knows."""
    if int(tokens.min()) < 0:
        raise BadInput(
            f"pool '{pool}' lives in worker processes, which do not have the image tokens in its prompts: set "
            "backend.workers=0 and pool.tp=1."
        )


def library_of(task: Task) -> Library:
    """Whole models, or this rank's share of them."""
    options = task.device, task.precision, task.seed, task.weights, task.attention
    return parallel.Share(parallel.Processes(task), *options) if task.ranks > 1 else Library(*options)


def serve(channel: Channel) -> None:
    """Take a task, load, then do passes until nobody asks any more."""
    made: list[Worker] = []

    def begin() -> Ready:
        made.append(Worker(pickle.loads(channel.receive())))
        return Ready(process_time())

    channel.answer(attempt(begin))
    while made:
        message = channel.receive()
        channel.answer(attempt(partial(made[0].run, message)))


def attempt(deed: Callable[[], Answer]) -> Answer:
    """What a deed answers, or why there is no answer."""
    try:
        return deed()
    except BadInput as error:
        return Refused(str(error))
    except parallel.PeerLost as error:
        return Parted(str(error))
    except (EOFError, OSError):
        raise
    except Exception:
        return Broken(format_exc())


def end_with(parent: int) -> None:
    """Ask Linux to kill this process with its parent, even a stopped one; elsewhere the closed channel must do."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    except (AttributeError, OSError):
        return
    if os.getppid() != parent:
        raise SystemExit(1)


def main() -> None:
    """`python -c '...main()' FILENO PARENT`: serve whoever holds the other end of the socket."""
    fileno, parent = map(int, sys.argv[1:])
    end_with(parent)
    try:
        serve(Channel(socket(fileno=fileno)))
    except (EOFError, OSError):
        raise SystemExit(0) from None

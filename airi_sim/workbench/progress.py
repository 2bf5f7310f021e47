"""Progress on stderr: a line that moves on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time


class Progress:
    """Called with (requests so far, time of the run), or told what to `say`; prints so often that one can read it."""

    def __init__(self, label: str, every_s: float | None = None) -> None:
        self.label = label
        self.moving = sys.stderr.isatty()
        self.every_s = every_s if every_s is not None else (0.2 if self.moving else 10.0)
        self.start = self.last = time.perf_counter()
        self.printed = False

    def __call__(self, requests: int, now: float) -> None:
        self.say(f"{requests:,} requests, {now:,.0f} s of the run")

    def say(self, done: str) -> None:
        """Print how far things are, unless something was printed a moment ago."""
        at = time.perf_counter()
        if at - self.last < self.every_s:
            return
        self.last = at
        self.printed = True
        text = f"{self.label}: {done} in {at - self.start:.0f} s"
        print(f"\r{text}\x1b[K" if self.moving else text, end="" if self.moving else "\n", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the line free for what follows."""
        if self.printed and self.moving:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

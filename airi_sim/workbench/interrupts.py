"""Ctrl-C and SIGTERM during a measured run: it ends between two passes, with everything it measured so far."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SLICE_S = 0.2
"""A driver that sleeps looks up this often."""


class Interrupted(KeyboardInterrupt):
    """The user stopped a run that keeps what it has; `signal` says how. The text is what the command says."""

    def __init__(self, number: int, text: str = "") -> None:
        super().__init__(text)
        self.signal = signal.Signals(number)


class Interrupts:
    """While entered, the two signals raise Interrupted: at once, or within `noted()` where `check` is called, which is
    where that does no harm. Whoever sends a second one does not wait for that.

    Signals that the process ignores stay ignored; other threads than the main one hear of none.
    """

    def __init__(self) -> None:
        self._patient = False
        self._number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self._number or not self._patient:
            raise Interrupted(number)
        self._number = number

    @contextmanager
    def noted(self) -> Iterator[None]:
        """A first signal waits for a `check`, or for the end of this."""
        self._patient = True
        try:
            yield
        finally:
            self._patient = False
        self.check()

    def check(self) -> None:
        """Raise Interrupted if a signal came."""
        if self._number:
            raise Interrupted(self._number)

    def sleeping(self, sleep: Callable[[float], None]) -> Callable[[float], None]:
        """`sleep`, in slices and with a check after each."""

        def patiently(seconds: float) -> None:
            while seconds > 0:
                sleep(min(seconds, SLICE_S))
                self.check()
                seconds -= SLICE_S

        return patiently

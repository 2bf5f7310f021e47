"""Watches the inside of a policy call: clocks, global randomness, errors, and calls that never return."""

from __future__ import annotations

import datetime
import gc
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from airi_sim.core.errors import BadInput
from airi_sim.workbench.laws.ran import Breach, line_of

CLOCKS = frozenset(
    {
        *(getattr(time, name) for name in dir(time) if name.removesuffix("_ns") in (
            "time", "monotonic", "perf_counter", "process_time", "thread_time", "sleep", "localtime", "gmtime",
        )),
        datetime.datetime.now, datetime.datetime.utcnow, datetime.date.today, datetime.datetime.today,
    }
)  # fmt: skip
GLOBAL_RANDOM = random.random.__self__  # type: ignore[attr-defined]
ENDLESS = 100_000
"""Python calls inside one call of a policy; in a small world a thousand are many."""


class Sentry:
    """Makes the calls of a policy under a profile function, which sees every C function however it was imported."""

    def __init__(self) -> None:
        self.events = 0
        self.found = ""

    def call(self, method: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """function(*arguments), or Breach for what it did besides."""
        outer, drawn = sys.getprofile(), _numpy_state()
        self.events, self.found = 0, ""
        collecting = gc.isenabled()
        gc.disable()  # whoever listens to the collector may read a clock, and would be taken for the policy
        sys.setprofile(self._watch)
        try:
            answer = function(*arguments)
        except (Breach, BadInput):
            raise
        except Exception as error:
            raise Breach("protocol", f"{method} raised {type(error).__name__}: {error} ({line_of(error)})") from error
        finally:
            sys.setprofile(outer)
            if collecting:
                gc.enable()
        if self.found:
            raise Breach("purity", f"{method} {self.found}")
        if drawn != _numpy_state():
            raise Breach("purity", f"{method} draws from numpy's global random numbers, which nobody seeded")
        return answer

    def _watch(self, frame: FrameType, event: str, what: Any) -> None:
        self.events += 1
        if event == "c_call" and not self.found:
            if getattr(what, "__self__", None) is GLOBAL_RANDOM:
                self._note(frame, "draws from the global random numbers, which nobody seeded")
            elif what in CLOCKS:
                self._note(frame, f"reads the clock: {what.__name__}()")
        if self.events > ENDLESS:
            raise Breach("progress", f"a single call of the policy made {ENDLESS} calls and was stopped")

    def _note(self, frame: FrameType, what: str) -> None:
        at: FrameType | None = frame
        while at is not None and at.f_code.co_filename.endswith("random.py"):
            at = at.f_back
        importing: FrameType | None = frame
        while importing is not None:
            if "importlib" in importing.f_code.co_filename:
                return
            importing = importing.f_back
        place = at or frame
        self.found = f"{what} ({Path(place.f_code.co_filename).name}, line {place.f_lineno})"


def _numpy_state() -> Any:
    """Where numpy's global generator stands; a method of Cython is invisible to a profile function."""
    module = sys.modules.get("numpy.random")
    if module is None:
        return None
    _, keys, position, has_gauss, gauss = module.get_state()
    return int(keys[0]), int(keys[-1]), position, has_gauss, gauss

"""Nothing leaks: looked for after every run, measured or simulated."""

from __future__ import annotations

from typing import Any

from airi_sim.runtime.leaks import leaks
from airi_sim.workbench.build import World


class Leak(RuntimeError):
    """Something of a run that is over was not given back: an error of the engine, not of its user."""


def check_leaks(world: World) -> None:
    """Leak if the runtime, the backend or an executor still holds anything; it names what, and where. `leaks()` of a
    backend or an executor, if it has that, says what it still holds, a phrase each."""
    found = leaks(world.runtime)
    for holder in (world.backend, *world.driver.executors):
        found += _leaks(holder)
    if found:
        raise Leak(f"the run is over but not everything was given back: {'; '.join(found)}.")


def _leaks(holder: Any) -> list[str]:
    ask = getattr(holder, "leaks", None)
    return list(ask()) if ask is not None else []

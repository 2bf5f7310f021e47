"""A measured run while it goes on: what is new is written every few seconds, and it ends where its user wants that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from airi_sim.results.parts import PartWriter, clear
from airi_sim.workbench.build import World
from airi_sim.workbench.interrupts import Interrupted, Interrupts
from airi_sim.workbench.measurements import Measures, measured_passes

LOSE = 0.02
"""A run that is killed loses so much of its time, or `results.checkpoint_s` if that is more: a run of a day leaves some
hundred parts, not tens of thousands."""


class Watch:
    """Called after each pass of a run that measures; of others it sees nothing.

    Every `every_s` seconds (None: never) it writes what is new to `folder`; `head()` is what a summary of that needs
    besides. `stopped` is how the user ended the run, `cpu_s` what writing took.
    """

    def __init__(
        self,
        world: World,
        folder: Path,
        every_s: float | None,
        interrupts: Interrupts,
        head: Callable[[], Mapping[str, Any]],
    ) -> None:
        self.world, self.every_s, self.interrupts, self.head = world, every_s, interrupts, head
        self.stopped: Interrupted | None = None
        self.cpu_s = 0.0
        self._writer = PartWriter(folder, world.backend.source)
        self._seen = dict.fromkeys(world.log.rows, 0)
        self._passes = 0
        self._origin: Mapping[str, Any] = {}

    def run(self) -> float:
        """Run the world; its duration in seconds. A run that measures and is interrupted ends at its last event."""
        self._begun = self._last = perf_counter()
        self._cpu = process_time()
        world, backend = self.world, self.world.backend
        if not isinstance(backend, Measures):
            return float(world.driver.run(iter(world.workload)))
        backend.watch = self
        if hasattr(world.driver, "sleep"):
            world.driver.sleep = self.interrupts.sleeping(world.driver.sleep)
        try:
            with self.interrupts.noted():
                return float(world.driver.run(iter(world.workload)))
        except Interrupted as stop:
            self.stopped = stop
            world.runtime.abandon(world.driver.now)
            return float(world.driver.now)
        finally:
            backend.watch = None
            rest = getattr(backend, "rest", None)
            if rest is not None:  # processes it began for the run end with it
                rest()

    def __call__(self) -> None:
        self.interrupts.check()
        if self.every_s is None:
            return
        now = perf_counter()
        if now - self._last >= max(self.every_s, LOSE * (now - self._begun)):
            self.flush()
            self._last = perf_counter()

    @property
    def wrote(self) -> bool:
        """Whether there is a part."""
        return self._writer.parts > 0

    def flush(self, failure: str = "") -> None:
        """Write a part; the last one may say why the run failed."""
        begun = process_time()
        if not self._origin:
            self._writer.open()
            self._origin = self.head()
        log, passes = self.world.log, measured_passes(self.world.backend, self._passes)
        new = {name: rows[self._seen[name] :] for name, rows in log.rows.items()}
        self._writer.write(new, passes, self._state(failure))
        self._passes += len(passes)
        for name, rows in new.items():
            self._seen[name] += len(rows)
        self.cpu_s += process_time() - begun

    def discard(self) -> None:
        """The run came to its end, or is of no use: no part stays."""
        if self.wrote:
            clear(self._writer.folder)

    def _state(self, failure: str) -> dict[str, Any]:
        driver, log = self.world.driver, self.world.log
        engine = {
            "cpu_s": process_time() - self._cpu - self.cpu_s,
            "wall_s": perf_counter() - self._begun,
            "events": driver.events,
        }
        reached = {"duration_s": driver.now, "arrived": driver.arrived, "requests": len(log.requests)}
        how = {"failure": failure, "decisions_hash": log.decisions_hash(), "engine": engine}
        return {**self._origin, **reached, **how}

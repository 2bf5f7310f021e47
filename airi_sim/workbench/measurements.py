"""What each pass of a measured run took, by part: kept in the run folder, and put into the simulator by a replay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from airi_sim.engine.backends import server_name
from airi_sim.results.parts import PASSES, passes_table


@runtime_checkable
class Measures(Protocol):
    """A backend that measures its passes. `watch` is called after each of them, outside its time."""

    watch: Callable[[], None] | None

    def measurements(self) -> list[dict[str, Any]]:
        """One row a pass, in the order in which they began: pool, replica, seconds, and what else is known."""
        ...


def measured_passes(backend: object, first: int = 0) -> list[dict[str, Any]]:
    """The passes of a backend from the one numbered `first` on, with the name of the server; none if it does not
    measure."""
    rows = backend.measurements()[first:] if isinstance(backend, Measures) else []
    return [row | {"server": server_name(row["pool"], row["replica"])} for row in rows]


def durations(backend: object) -> dict[str, list[float]]:
    """Seconds of every pass by server, in the order in which they began (the plans table lists them as they ended, and
    knows nothing of the length of a pass whose server died)."""
    found: dict[str, list[float]] = {}
    for row in measured_passes(backend):
        found.setdefault(row["server"], []).append(row["seconds"])
    return found


def write_measurements(backend: object, folder: Path) -> None:
    """`passes.parquet`, a row a pass; nothing where nothing was measured."""
    rows = measured_passes(backend)
    if rows:
        from pyarrow import parquet

        parquet.write_table(passes_table(rows), folder / f"{PASSES}.parquet", compression="zstd")

"""Where the rows of a run go: short runs stay in memory, long ones go to files while they run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from airi_sim.core.log import TABLES, Log
from airi_sim.results.tables import Rows, StoredTable, TableWriter, put_in_order, write_tables


class Recorder:
    """The sink of a Log, and what the summary and the run folder are made from.

    `place()` is the folder for the files. It is asked for with the first rows that the log hands over, which it does
    when it has many (`Log.chunk`): a run that never gets there writes nothing before it is over. `cpu_s` is the
    processor time that went into writing so far, `closed` whether the run is over.
    """

    def __init__(self, log: Log, source: str, place: Callable[[], Path]) -> None:
        self.log = log
        self.source = source
        self.place = place
        self.cpu_s = 0.0
        self.closed = False
        self._writer: TableWriter | None = None
        self._stored: dict[str, StoredTable] = {}

    @property
    def spilled(self) -> bool:
        """Whether rows went to files."""
        return self._writer is not None

    def __call__(self, name: str, rows: Rows) -> None:
        """Called by the log with rows that it then forgets."""
        begun = time.process_time()
        if self._writer is None:
            self._writer = TableWriter(self.place(), self.source)
        self._writer(name, rows)
        self.cpu_s += time.process_time() - begun

    def close(self) -> Mapping[str, Any]:
        """The run is over, one way or another: all its tables by name, for `metrics.summarise`."""
        self.closed = True
        if self._writer is None:
            return self.log.rows
        self.log.flush()
        self._writer.close()
        self._stored = {name: StoredTable(self._writer.folder, name) for name in TABLES}
        return self._stored

    def write(self) -> None:
        """Leave the tables, in order, in the folder."""
        if self._writer is None:
            write_tables(self.log.rows, self.place(), self.source)
            return
        self._release()
        for name in TABLES:
            put_in_order(self._writer.folder, name)

    def drop(self) -> None:
        """Nobody wants the tables."""
        self._release()
        if self._writer is not None:
            for name in TABLES:
                (self._writer.folder / f"{name}.parquet").unlink()

    def _release(self) -> None:
        for table in self._stored.values():
            table.close()
        self._stored.clear()

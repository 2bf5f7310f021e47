"""A run under way, on disk: every few seconds the rows that are new go into files of their own, and a checkpoint names
how many such parts are complete. What a run that was killed had written by then reads like a run folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airi_sim.core.errors import BadInput
from airi_sim.core.log import TABLES
from airi_sim.results.metrics import Summary, clean, summarise
from airi_sim.results.tables import Rows, in_order, schema, to_arrow

if TYPE_CHECKING:
    import pyarrow as pa

PARTIAL = "partial"
"""Where, within the run folder."""
CHECKPOINT = "checkpoint.json"
PASSES = "passes"
"""The table of a measured run that the log does not have: a row a pass."""


class PartWriter:
    """Writes parts into `folder`, in place of those of an earlier run."""

    def __init__(self, folder: Path, source: str) -> None:
        self.folder = folder
        self.source = source
        self.parts = 0

    def open(self) -> None:
        """Make the folder. Called before the first part."""
        clear(self.folder)
        self.folder.mkdir(parents=True)

    def write(self, rows: Mapping[str, Rows], passes: Sequence[Mapping[str, Any]], state: Mapping[str, Any]) -> None:
        """One part: the new rows of each table of the log and of the passes; `state` is what Parts makes a summary
        from. The checkpoint comes last, so a part counts only when all of it is there."""
        self.parts += 1
        for name, new in rows.items():
            if new:
                self._put(name, to_arrow(name, new, self.source))
        if passes:
            self._put(PASSES, passes_table(passes))
        draft = self.folder / f"{CHECKPOINT}.part"
        draft.write_text(json.dumps(clean({"parts": self.parts, **state}), indent=1), encoding="utf-8")
        draft.replace(self.folder / CHECKPOINT)

    def _put(self, name: str, table: pa.Table) -> None:
        from pyarrow import parquet

        path = self.folder / f"{name}-{self.parts:05}.parquet"
        draft = path.with_suffix(".part")
        parquet.write_table(table, draft, compression="zstd", compression_level=1)
        os.replace(draft, path)


class Parts:
    """The parts that a run wrote before it was killed, or has written so far. BadInput if somebody broke them."""

    def __init__(self, run: Path) -> None:
        self.folder = run / PARTIAL
        path = self.folder / CHECKPOINT
        try:
            self.state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise BadInput(
                f"'{path}' cannot be read as JSON ({error}); remove {self.folder} or run it again."
            ) from error

    @staticmethod
    def of(run: Path) -> Parts | None:
        """Those of a run folder; None if it has none: a run that comes to its end removes them."""
        return Parts(run) if (run / PARTIAL / CHECKPOINT).is_file() else None

    def table(self, name: str) -> pa.Table:
        """A table in order, as far as it was written."""
        import pyarrow as pa
        from pyarrow import parquet

        paths = [self.folder / f"{name}-{number:05}.parquet" for number in range(1, self.state["parts"] + 1)]
        found = [parquet.ParquetFile(path).read() for path in paths if path.exists()]
        empty = [schema(name).empty_table()] if name in TABLES else []
        return in_order(name, pa.concat_tables([*empty, *found], promote_options="permissive"))

    def summary(self) -> Summary:
        """What summary.json would hold; requests under way at the last checkpoint count as unfinished."""
        state = self.state
        given = {key: state[key] for key in ("slo", "weights", "servers", "decisions_hash", "duration_s")}
        origin = state["provenance"]
        warnings = [*origin["warnings"], self.missing()]
        provenance = origin | {"warnings": warnings, "interrupted": state["failure"] or "killed"}
        tables = {name: self.table(name) for name in TABLES}
        found = summarise(tables, engine=state["engine"], provenance=provenance, **given)
        found["requests"] |= {"offered": state["arrived"], "unfinished": self.open}
        return found

    @property
    def open(self) -> int:
        """Requests that were under way."""
        return int(self.state["arrived"] - self.state["requests"])

    def missing(self) -> str:
        """What a reader should know."""
        state, how = self.state, self.state["failure"] or "it was killed"
        return (
            f"this run did not come to its end ({how}): its tables hold what was over by {state['duration_s']:.1f} s "
            f"of the run, {state['requests']:,} requests; {self.open:,} were under way and have no rows."
        )


def passes_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The measured passes as a table."""
    import pyarrow as pa

    return pa.Table.from_pylist(list(rows))


def clear(folder: Path) -> None:
    """Remove a folder of parts."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)

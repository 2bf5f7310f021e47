"""One way to read a column, whatever holds the table: rows of the log, a data frame, an Arrow table, or a file."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airi_sim.core.log import TABLES

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Counts = NDArray[np.int32]
Texts = NDArray[np.object_]


class Columns:
    """A table of the log, read by column. `table` is a list of row tuples, a pandas DataFrame, a pyarrow Table or a
    tables.StoredTable; it must not change while it is read. Arrays are kept for the next time: do not write to them."""

    def __init__(self, name: str, table: Any) -> None:
        self.name = name
        self.table = table
        self.names = TABLES[name]
        self._read: dict[tuple[str, Any], Any] = {}

    def __len__(self) -> int:
        return len(self.table)

    def floats(self, column: str) -> Floats:
        """The column as seconds or counts; what is undefined (None, inf) is nan."""
        return self._cells(column, np.float64)

    def ints(self, column: str) -> Ints:
        """The column as whole numbers; what is undefined is -1."""
        values = self.floats(column)
        return np.where(np.isnan(values), -1, values).astype(np.int64)

    def texts(self, column: str) -> Texts:
        """The column as Python strings."""
        return self._cells(column, np.object_)

    def servers(self) -> tuple[list[str], Ints]:
        """Names of the servers in order, and which of them each row is about."""
        return codes(self.texts("server"))

    def _cells(self, column: str, kind: Any) -> Any:
        key = (column, kind)
        if key not in self._read:
            cells = self._fetch(column, kind)
            if kind is np.float64 and np.isinf(cells).any():
                cells = np.where(np.isinf(cells), np.nan, cells)
            self._read[key] = cells
        return self._read[key]

    def _fetch(self, column: str, kind: Any) -> Any:
        if isinstance(self.table, list):
            return _from_rows(self.table, self.names.index(column), kind)
        cells = self.table[column]
        if hasattr(cells, "to_pylist"):
            return _from_arrow(cells, kind)
        return cells.to_numpy(dtype=kind, na_value=np.nan if kind is np.float64 else None)


def _from_rows(rows: list[tuple[Any, ...]], place: int, kind: Any) -> Any:
    if kind is np.object_:
        cells = np.empty(len(rows), dtype=object)
        cells[:] = list(map(itemgetter(place), rows))
        return cells
    try:
        return np.fromiter(map(itemgetter(place), rows), kind, len(rows))
    except TypeError:  # None somewhere: the slower constructor reads it as nan
        return np.array([row[place] for row in rows], dtype=kind)


def _from_arrow(cells: Any, kind: Any) -> Any:
    """By buffers, because pyarrow's own way imports pandas. Texts stored as places in a dictionary stay few: the rows
    share them."""
    whole = cells.combine_chunks()
    if hasattr(whole, "dictionary"):
        names = np.array([*whole.dictionary.to_pylist(), None], dtype=object)
        place, known = _buffer(whole.indices)
        return names[np.where(known, place, len(names) - 1)]
    if kind is np.object_:
        return np.array([*whole.to_pylist(), None], dtype=object)[:-1]
    numbers, known = _buffer(whole)
    return np.where(known, numbers, np.nan).astype(kind)


def _buffer(cells: Any) -> tuple[Any, Any]:
    """The numbers of an Arrow array, and which of them are known (one True if all are)."""
    places = slice(cells.offset, cells.offset + len(cells))
    validity, numbers = cells.buffers()
    known = np.True_ if validity is None else _bits(validity)[places]
    if cells.type == "bool":
        return _bits(numbers)[places], known
    kind = f"{'f' if cells.type == 'double' else 'i'}{cells.type.bit_width // 8}"
    return np.frombuffer(numbers, kind)[places], known


def _bits(buffer: Any) -> Any:
    return np.unpackbits(np.frombuffer(buffer, np.uint8), bitorder="little").astype(bool)


def codes(texts: Texts) -> tuple[list[str], Ints]:
    """Distinct texts in order of name, and the place of each cell among them."""
    cells = texts.tolist()
    names = sorted(set(cells), key=str)
    place = {name: i for i, name in enumerate(names)}
    return [str(name) for name in names], np.fromiter(map(place.__getitem__, cells), np.int64, len(cells))


def every(tables: Mapping[str, Any]) -> dict[str, Columns]:
    """All tables of a run by name; a missing one is empty."""
    return {name: Columns(name, tables.get(name, [])) for name in TABLES}

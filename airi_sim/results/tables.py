"""The five tables of a run as parquet files: typed, in a fixed order, byte-identical for identical runs.

pyarrow only: pandas is not needed to write, and its import would cost more than writing a small run.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from airi_sim.core.errors import BadInput
from airi_sim.core.log import TABLES
from airi_sim.results.columns import Columns, Ints, codes

if TYPE_CHECKING:
    import pyarrow as pa

Rows = list[tuple[Any, ...]]
ROWS = 65536
"""Of a row group, where a table is written in parts."""

ORDER: dict[str, tuple[str, ...]] = {
    "requests": ("request",),
    "jobs": ("job",),
    "plans": ("start_s", "server"),
    "decisions": ("order",),
    "spans": ("job", "joined_s"),
}
"""What the rows of a table are sorted by; ties keep the order of the log."""

TEXTS = {
    "tenant", "session", "program", "model", "status", "reason", "kind", "pool", "server", "where", "policy", "choice",
    "source",
}  # fmt: skip
FLAGS = {"emitted"}


def write_tables(tables: Mapping[str, Rows], folder: str | Path, source: str) -> None:
    """Write all rows of a run (`Log.rows`) in order; `source` is sim or torch. Raises BadInput where it cannot."""
    with TableWriter(folder, source) as writer:
        for name in TABLES:
            writer(name, rows_in_order(name, tables.get(name, [])))


class TableWriter:
    """Writes tables as they come: give it to `Log(sink=writer)` and close it at the end.

    Every call adds a row group in the order of the log, so memory follows what is in flight; `put_in_order` and
    `read_table` sort. All five files exist from the first moment on, and are readable once closed. Raises BadInput
    where the folder cannot be written.
    """

    def __init__(self, folder: str | Path, source: str) -> None:
        self.folder = Path(folder)
        self.source = source
        self._files = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for name in TABLES:
                self._files[name] = _open(self.folder / f"{name}.parquet", schema(name))
        except OSError as error:
            raise BadInput(
                f"the output folder '{folder}' cannot be written ({error.strerror or error}); choose another one with "
                "hydra.run.dir=DIR."
            ) from error

    def __call__(self, name: str, rows: Rows) -> None:
        """The sink of a Log: called with rows that the log then forgets."""
        if rows:
            self._files[name].write_table(to_arrow(name, rows, self.source))

    def close(self) -> None:
        """Finish the files; they cannot be read before."""
        for file in self._files.values():
            file.close()

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class StoredTable:
    """A closed table of a folder, in the order of its file, read column by column when asked for one."""

    def __init__(self, folder: str | Path, name: str) -> None:
        import pyarrow.parquet as parquet

        self.file = parquet.ParquetFile(Path(folder) / f"{name}.parquet", read_dictionary=_texts(schema(name)))

    def __len__(self) -> int:
        return int(self.file.metadata.num_rows)

    def __getitem__(self, column: str) -> pa.ChunkedArray:
        return self.file.read([column]).column(0)

    def close(self) -> None:
        """Let go of the file."""
        self.file.close()


def put_in_order(folder: str | Path, name: str) -> None:
    """Sort a closed table of a folder; a file whose rows are in order already is left as it is."""
    path = Path(folder) / f"{name}.parquet"
    stored = StoredTable(folder, name)
    order = _order(name, stored)
    if order is not None:
        draft = path.with_suffix(".part")
        rows = stored.file.read().combine_chunks()
        with _open(draft, schema(name)) as file:
            for first in range(0, len(order), ROWS):
                file.write_table(rows.take(order[first : first + ROWS]).cast(schema(name)))
        draft.replace(path)
    stored.close()


def schema(name: str) -> pa.Schema:
    """Columns and types of a table: seconds float64, counts int64, the rest text. requests gets `source`."""
    import pyarrow as pa

    def kind(column: str) -> pa.DataType:
        if column in TEXTS:
            return pa.string()
        if column in FLAGS:
            return pa.bool_()
        return pa.float64() if column.endswith("_s") else pa.int64()

    extra = ("source",) if name == "requests" else ()
    return pa.schema([(column, kind(column)) for column in TABLES[name] + extra])


def to_arrow(name: str, rows: Rows, source: str = "sim") -> pa.Table:
    """Rows of the log as a typed Arrow table; what is undefined (None, inf, nan) becomes null."""
    import pyarrow as pa

    kinds = schema(name)
    arrays = [_array(list(map(itemgetter(i), rows)), kinds.field(i).type) for i in range(len(TABLES[name]))]
    if name == "requests":
        arrays.append(_text_array([source] * len(rows)))
    return pa.Table.from_arrays(arrays, schema=kinds)


def rows_in_order(name: str, rows: Rows) -> Rows:
    """The rows sorted by `ORDER`; ties stay as they are, sorted rows are returned as they are."""
    order = _order(name, rows)
    return rows if order is None else [rows[place] for place in order.tolist()]


def in_order(name: str, table: pa.Table) -> pa.Table:
    """The same for an Arrow table; one that the log does not have stays as it is."""
    order = _order(name, table) if name in ORDER else None
    return table if order is None else table.take(order)


def read_table(folder: str | Path, name: str) -> pa.Table:
    """A table of a run folder, in order. Raises BadInput where it is missing or broken."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    path = Path(folder) / f"{name}.parquet"
    try:
        return in_order(name, parquet.ParquetFile(path).read())
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise BadInput(f"'{path}' is not a readable table of a run; was the run finished?") from error


def read_tables(folder: str | Path) -> dict[str, pa.Table]:
    """All tables of a run folder, in order: what `metrics.summarise` takes after a streamed run."""
    return {name: read_table(folder, name) for name in TABLES}


def _order(name: str, table: Any) -> Ints | None:
    """Places in order; None if the rows are in order already."""
    read = Columns(name, table)
    keys = [codes(read.texts(key))[1] if key in TEXTS else read.floats(key) for key in ORDER[name]]
    order = np.lexsort(keys[::-1])
    return None if (order == np.arange(len(order))).all() else order


def _open(path: Path, kinds: pa.Schema) -> Any:
    import pyarrow.parquet as parquet

    return parquet.ParquetWriter(path, kinds, compression="zstd", compression_level=1, use_dictionary=_texts(kinds))


def _texts(kinds: pa.Schema) -> list[str]:
    return [field.name for field in kinds if field.name in TEXTS]


def _array(cells: list[Any], kind: pa.DataType) -> pa.Array:
    """Built from buffers: `pyarrow.array` would import pandas, which costs more than writing a small run."""
    import pyarrow as pa

    if pa.types.is_string(kind):
        return _text_array(cells)
    if pa.types.is_boolean(kind):
        return pa.Array.from_buffers(kind, len(cells), [None, _bits(np.fromiter(map(bool, cells), bool, len(cells)))])
    if pa.types.is_floating(kind):
        numbers = np.array(cells, dtype=np.float64)
        known = np.isfinite(numbers)
    else:
        known = _known(cells)
        numbers = np.array(cells if known.all() else [cell or 0 for cell in cells], dtype=np.int64)
    if known.all():
        return pa.Array.from_buffers(kind, len(cells), [None, pa.py_buffer(numbers)])
    return pa.Array.from_buffers(kind, len(cells), [_bits(known), pa.py_buffer(np.where(known, numbers, 0))])


def _text_array(cells: list[Any]) -> pa.Array:
    import pyarrow as pa

    known = _known(cells)
    texts = cells if known.all() else ["" if cell is None else cell for cell in cells]
    try:
        joined = "".join(texts)
    except TypeError:
        texts = [str(text) for text in texts]
        joined = "".join(texts)
    lengths = map(len, texts if joined.isascii() else [text.encode() for text in texts])
    ends = np.zeros(len(cells) + 1, dtype=np.int64)
    np.cumsum(np.fromiter(lengths, np.int64, len(cells)), out=ends[1:])
    validity = None if known.all() else _bits(known)
    buffers = [validity, pa.py_buffer(ends), pa.py_buffer(joined.encode())]
    return pa.Array.from_buffers(pa.large_string(), len(cells), buffers).cast(pa.string())


def _known(cells: list[Any]) -> np.ndarray:
    return np.array([cell is not None for cell in cells]) if None in cells else np.ones(len(cells), dtype=bool)


def _bits(flags: np.ndarray) -> pa.Buffer:
    import pyarrow as pa

    return pa.py_buffer(np.packbits(flags, bitorder="little"))

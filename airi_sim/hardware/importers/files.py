"""Tables of op timings as columns, from csv or parquet."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airi_sim.core.errors import BadInput

Column = NDArray[Any]
Table = dict[str, Column]

SUFFIXES = (".csv", ".parquet")


def read(path: Path) -> Table:
    """All columns of a table; those that hold numbers only are floats (empty: nan), others text. BadInput if broken."""
    try:
        return _parquet(path) if path.suffix == ".parquet" else _csv(path)
    except (OSError, ValueError, csv.Error) as error:
        raise BadInput(f"cannot read the op table '{path}' ({str(error).splitlines()[0]}).") from None


def header(path: Path) -> tuple[str, ...]:
    """The names of the columns, without reading the rest."""
    try:
        if path.suffix == ".parquet":
            from pyarrow import parquet

            return tuple(parquet.ParquetFile(path).schema_arrow.names)
        with path.open(newline="", encoding="utf-8") as file:
            return tuple(next(csv.reader(file), ()))
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read the op table '{path}' ({str(error).splitlines()[0]}).") from None


def where(table: Table, flags: Column) -> Table:
    """The rows of a table for which `flags` holds."""
    return {name: column[flags] for name, column in table.items()}


def _csv(path: Path) -> Table:
    with path.open(newline="", encoding="utf-8") as file:
        names, *rows = csv.reader(file)
    ragged = next((i for i, row in enumerate(rows) if len(row) != len(names)), None)
    if ragged is not None:
        raise ValueError(f"row {ragged + 1} has {len(rows[ragged])} cells where the header has {len(names)}")
    return {name: _typed([row[i] for row in rows]) for i, name in enumerate(names)}


def _typed(cells: Sequence[str]) -> Column:
    try:
        return np.array([float(cell) if cell else np.nan for cell in cells])
    except ValueError:
        return np.array(cells, dtype=object)


def _parquet(path: Path) -> Table:
    from pyarrow import parquet

    table = parquet.read_table(path)
    return {name: table.column(name).to_numpy() for name in table.column_names}

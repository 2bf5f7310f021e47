"""Readers of published op tables: one module a format, all to `ops.Ops`. Formats are told by their columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from airi_sim.core.errors import BadInput
from airi_sim.hardware.importers import aic, blis, layerwise, vidur
from airi_sim.hardware.importers.files import SUFFIXES, Table, header, read
from airi_sim.hardware.importers.ops import Ops, Wanted, joined
from airi_sim.models.spec import ModelSpec

Reader = Callable[[Table, Wanted], "list[Ops]"]

READERS: tuple[tuple[tuple[str, ...], Reader], ...] = (*aic.READERS, *blis.READERS, *vidur.READERS, *layerwise.READERS)
"""Columns that tell a table, and what reads it."""


def read_ops(
    paths: Sequence[str | Path], device: str, precision: str = "bf16", model: ModelSpec | None = None
) -> list[Ops]:
    """All timings of `device` in the tables at `paths` (files, or folders of which every table is read).

    `model` is whose layers are meant where a table times the layers of models. BadInput where a path is missing, a
    table is of no known format, or nothing is about the device.
    """
    wanted = Wanted(device, precision, model)
    files = [file for path in paths for file in _tables(Path(path))]
    parts = joined([part for file in files for part in reader(file)(read(file), wanted)])
    if not parts:
        raise BadInput(
            f"no timing of '{device}' in {precision} in {', '.join(map(str, paths))}: name "
            "another device with accelerator=... or calibrate.device=..., or another precision."
        )
    return parts


def reader(path: Path) -> Reader:
    """What reads a table; BadInput says which formats there are."""
    columns = set(header(path))
    for wanted, function in READERS:
        if columns.issuperset(wanted):
            return function
    formats = "; ".join(", ".join(wanted) for wanted, _ in READERS)
    raise BadInput(f"'{path}' is no op table of a known format: one has (at least) the columns {formats}.")


def _tables(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    files = sorted(file for file in path.glob("*") if file.suffix in SUFFIXES) if path.is_dir() else []
    if not files:
        raise BadInput(f"there is no op table at '{path}': give a csv or parquet file, or a folder that holds some.")
    return files

"""DataFrames for experiments, which import no pandas of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from airi_sim.core.errors import BadInput


def frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A line a row."""
    return pd.DataFrame(list(rows))


def reference(folder: Path, name: str) -> pd.DataFrame:
    """A csv table of the reference data in `folder`; BadInput where it is absent."""
    path = folder / name
    if not path.is_file():
        raise BadInput(f"'{path}' is not there: point data.dir to the reference data.")
    return pd.read_csv(path)

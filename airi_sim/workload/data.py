"""Where data lies: the data folder, and files found by name in it."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path

from airi_sim.core.errors import BadInput

SHORT = {
    "azure_conv": "AzureLLMInferenceTrace_conv.csv",
    "azure_code": "AzureLLMInferenceTrace_code.csv",
    "mooncake": "mooncake_conversation.jsonl",
}
"""Short names of published traces."""
_SUFFIXES = ("", ".csv", ".jsonl")


def data_folder(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The data folder: as given, else the environment variable AIRI_DATA, else `data`."""
    return Path(data_dir or os.environ.get("AIRI_DATA") or "data")


def find(path: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None = None) -> Path:
    """A file: `path` as given, else under the data folder or its `traces`; the suffix may be left out (`W1`).

    Raises BadInput when there is none, with the nearest name that exists.
    """
    name = SHORT.get(str(path), str(path))
    folder = data_folder(data_dir)
    for place in (Path(), folder, folder / "traces"):
        for suffix in _SUFFIXES:
            candidate = place / (name + suffix)
            if name and candidate.is_file():
                return candidate
    if name and Path(name).is_dir():
        raise BadInput(f"'{path}' is a folder, not a file: name a file in it.")
    raise BadInput(
        f"there is no file '{path}', neither as given nor in the data folder '{folder}'{_nearest(name, folder)}; "
        "check the path, or set AIRI_DATA (data.dir) to the folder that holds the traces."
    )


def _nearest(name: str, folder: Path) -> str:
    places = [place for place in (folder, folder / "traces") if place.is_dir()]
    files = sorted({file.name for place in places for file in place.iterdir() if file.is_file()})
    near = get_close_matches(Path(name).name, files, n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""

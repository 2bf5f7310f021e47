"""airi study: policies x loads x seeds, with paired confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence

from airi_sim.workbench.config import load_config, show_config
from airi_sim.workbench.folders import run_folder
from airi_sim.workbench.study import study, text_of, write


def command(overrides: Sequence[str], show: bool = False) -> int:
    """Run the grid, print the table, write study.csv beside the run folders."""
    config = load_config(overrides)
    if show:
        return show_config(config)
    with run_folder(config, overrides) as folder:
        found = study(list(overrides), folder)
        write(found, folder / "study.csv")
    print(text_of(found, found[0].policies))
    print(f"table: {folder / 'study.csv'}")
    return 0

"""airi run: one run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airi_sim.results.text import headline
from airi_sim.workbench.config import load_config, plain, show_config
from airi_sim.workbench.execute import execute
from airi_sim.workbench.folders import run_folder


def command(overrides: Sequence[str], show: bool = False) -> int:
    """Run the config and print its headline figures and the run folder."""
    config = load_config(overrides)
    if show:
        return show_config(config)
    with run_folder(config, overrides) as folder:
        summary = execute(plain(config), folder)
    print(headlines(summary))
    print(f"run folder: {folder}")
    return 0


def headlines(summary: dict[str, Any]) -> str:
    """The figures one looks at first, a line each, and the warnings."""
    pairs = headline(summary)
    width = max(len(name) for name, _ in pairs)
    lines = [f"{name:{width}}  {value}" for name, value in pairs]
    return "\n".join(lines + [f"warning: {text}" for text in summary["provenance"]["warnings"]])

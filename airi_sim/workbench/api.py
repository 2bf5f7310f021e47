"""For notebooks: `airi_sim.run([...])` and `airi_sim.load(folder)`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from airi_sim.core.errors import BadInput
from airi_sim.results.run import Run
from airi_sim.results.run import load as load_run
from airi_sim.workbench.config import load_config, plain
from airi_sim.workbench.execute import execute
from airi_sim.workbench.folders import run_folder


def run(overrides: Sequence[str] = ()) -> Run:
    """One run by the overrides of the command line: `airi_sim.run(["workload=poisson", "policy/queue=vtc"])`.

    Returns the run folder as an object: `requests`, `jobs`, `plans`, `decisions` (frames), `summary` (dict),
    `plot.<picture>()`. Raises BadInput with one sentence where the input cannot be used.
    """
    if isinstance(overrides, str):
        raise BadInput(f"airi_sim.run takes a list of overrides: airi_sim.run([{overrides!r}]).")
    config = load_config(overrides)
    with run_folder(config, overrides) as folder:
        execute(plain(config), folder)
    return load_run(folder)


def load(folder: str | Path) -> Run:
    """A run folder written earlier."""
    return load_run(folder)

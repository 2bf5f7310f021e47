"""Where a command writes: the folder its user names, or one that nobody else has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from omegaconf import DictConfig

from airi_sim.workbench.config import parse
from airi_sim.workbench.execute import check_folder


@contextmanager
def run_folder(config: DictConfig, overrides: Sequence[str]) -> Iterator[Path]:
    """The run folder of a command while it works.

    `hydra.run.dir=DIR` is taken as it is, and what an earlier run left there is replaced. The default holds a second
    of the clock, in which several runs may start: the folder is made here, the next ones get DIR-2, DIR-3, ..., and it
    is removed again if nothing was written. Raises BadInput where nothing can be written.
    """
    folder = Path(config.hydra.run.dir)
    check_folder(folder)
    if any(override.key_or_group == "hydra.run.dir" for override in parse(overrides)):
        yield folder
        return
    made = [parent for parent in folder.parents if not parent.exists()]
    folder = _claimed(folder)
    try:
        yield folder
    finally:
        with suppress(OSError):  # the first that holds something ends it
            for empty in [folder, *made]:
                empty.rmdir()


def _claimed(wanted: Path) -> Path:
    """The first of DIR, DIR-2, DIR-3, ... that did not exist; mkdir lets one of several processes have it."""
    for number in count(1):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        with suppress(FileExistsError, FileNotFoundError):  # not found: another run just tidied the parent away
            folder.mkdir(parents=True)
            break
    return folder

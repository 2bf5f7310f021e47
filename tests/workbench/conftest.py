"""The command in this process: what it printed, and what it left behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from airi_sim.workbench.cli import main

SMALL = ("model=tiny", "accelerator=l4")


@dataclass(frozen=True)
class Done:
    """How a command ended; `folder` is its run folder, `left` all that is in the folder above."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def left(self) -> list[str]:
        return sorted(path.name for path in self.folder.parent.iterdir())

    @property
    def sentence(self) -> str:
        """What a user reads who gave bad input; everything the contract says of that is checked here."""
        assert self.code == 2, (self.code, self.out, self.err)
        assert self.left == [], f"half-written: {self.left}"
        assert self.out == ""
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("airi: ") and "Traceback" not in self.err
        return lines[0].removeprefix("airi: ")


Run = Callable[..., Done]


@pytest.fixture
def airi(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """`airi("seed=1")` runs `airi run` on a tiny model in a new folder; `verb=...` runs another verb."""

    def call(*words: str, verb: str = "run", small: bool = True) -> Done:
        folder = tmp_path / "runs" / "run"
        folder.parent.mkdir(exist_ok=True)
        code = main([verb, *(SMALL if small else ()), f"hydra.run.dir='{folder}'", *words])
        return Done(code, *capsys.readouterr(), folder)

    return call

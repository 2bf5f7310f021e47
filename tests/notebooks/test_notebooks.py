"""Notebooks: paired with a script, committed without outputs, and they run from top to bottom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SCRIPTS = sorted(NOTEBOOKS.glob("*.py"))
SMALL = {"QUICKSTART_REQUESTS": "120", "COMPARE_REQUESTS": "150", "COMPARE_SEEDS": "3"}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def cells(notebook: Any) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def test_every_notebook_has_a_script() -> None:
    assert SCRIPTS
    assert [path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb"))] == [path.stem for path in SCRIPTS]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_and_notebook_say_the_same(script: Path) -> None:
    notebook = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    assert cells(jupytext.read(script)) == cells(notebook), f"run: jupytext --sync {script.name}"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_outputs_are_stripped(script: Path) -> None:
    code = [c for c in nbformat.read(script.with_suffix(".ipynb"), as_version=4).cells if c.cell_type == "code"]
    assert [c for c in code if c.outputs or c.execution_count] == []


def executed(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the cells of a notebook show when they run on a small input."""
    for key, value in SMALL.items():
        monkeypatch.setenv(key, value)
    notebook = jupytext.read(NOTEBOOKS / f"{name}.py")
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert [output for output in shown if output.get("name") == "stderr"] == []
    return shown


def pictures(shown: list[Any]) -> int:
    return sum("image/png" in output.get("data", {}) for output in shown)


def test_quickstart_runs_and_shows_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = executed("quickstart", tmp_path, monkeypatch)
    assert pictures(shown) == 3
    assert any("requests start earlier" in output.get("text", "") for output in shown)
    assert {path.name for path in (tmp_path / "runs/quickstart").iterdir()} == {"fcfs", "patient_sjf"}


def test_compare_policies_runs_and_its_pairs_are_worth_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = executed("compare_policies", tmp_path, monkeypatch)
    assert pictures(shown) == 1
    assert any("24 runs" in output.get("text", "") for output in shown)
    found = pd.read_csv(tmp_path / "runs/compare_policies/intervals.csv")
    assert len(found) == 6 and (found.correlation > 0.9).all() and (found.times_the_seeds > 4).all()

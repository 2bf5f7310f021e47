"""What the documents name exists: tests of the invariants, shape tests, commands, pictures."""

from __future__ import annotations

import ast
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import airi_sim
from airi_sim.workbench.cli import VERBS

ROOT = Path(__file__).parents[2]
INVARIANTS = (ROOT / "docs/invariants.md").read_text()
NODES = re.findall(r"`(tests/\S+?\.py)::(\w+)`", INVARIANTS)
PROSE = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
VERB = re.compile(r"(?:^|`)(?:\.venv/bin/|uv run )?airi ([a-z]+)", re.MULTILINE)


def functions_of(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_row_of_the_invariants_names_its_test() -> None:
    rows = [line for line in INVARIANTS.splitlines() if line.startswith("|") and not line.startswith(("| inv", "|---"))]
    assert len(rows) == len(NODES) > 30


@pytest.mark.parametrize("path", sorted({path for path, _ in NODES}))
def test_the_tests_of_the_invariants_exist(path: str) -> None:
    assert {name for file, name in NODES if file == path} - functions_of(path) == set()


def test_the_shapes_of_the_design_exist() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/design.md").read_text()))
    assert len(named) == 8
    assert named - functions_of("tests/laws/test_shapes.py") == set()


@pytest.mark.parametrize("document", PROSE, ids=lambda path: path.name)
def test_commands_that_are_shown_exist(document: Path) -> None:
    text = document.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(VERB.findall(text)) - set(VERBS) == set()
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)) - targets == set()


def test_the_readme_begins_with_the_two_commands() -> None:
    block = re.search(r"^```(?:bash|sh)?\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert block is not None
    commands = [line.split("#")[0].strip() for line in block[1].splitlines()]
    assert commands[:2] == ["make demo", "make test"]


def test_the_policy_of_the_readme_is_short_runs_and_keeps_the_laws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "README.md").read_text()
    code = re.search(r"^```python\n(# my_router\.py\n.*?)^```", text, re.MULTILINE | re.DOTALL)
    command = re.search(r"^airi run (.*my_router\.LeastTokens)", text, re.MULTILINE)
    assert code is not None and command is not None
    assert len(code[1].splitlines()) <= 12
    (tmp_path / "my_router.py").write_text(code[1])
    monkeypatch.syspath_prepend(str(tmp_path))
    run = airi_sim.run([*command[1].split(), "workload.n=50", f"hydra.run.dir={tmp_path / 'run'}"])
    assert run.summary["requests"]["finished"] == 50
    assert set(run.jobs["server"]) == {"default/0", "default/1"}
    report = airi_sim.check_policy("my_router.LeastTokens", worlds=6)
    assert report.ok, report


@pytest.fixture
def draw() -> Callable[[Path, Path], Any]:
    made: Callable[[Path, Path], Any] = runpy.run_path(str(ROOT / "docs/img/readme.py"))["draw"]
    return made


def test_the_picture_is_drawn_from_a_comparison(draw: Callable[[Path, Path], Any], tmp_path: Path) -> None:
    for name in ("sim", "measured", "repeat"):
        airi_sim.run(["workload.n=20", f"hydra.run.dir={tmp_path / 'one' / name}"])
    draw(tmp_path, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_needs_a_comparison(draw: Callable[[Path, Path], Any], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no comparison"):
        draw(tmp_path, tmp_path / "picture.png")


def test_pictures_are_small() -> None:
    assert [path.name for path in (ROOT / "docs/img").glob("*.png") if path.stat().st_size > 200_000] == []

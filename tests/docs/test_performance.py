"""docs/performance.md: its tables can be made anew, and the cases it names exist."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from airi_sim.workbench.cases import SETS, TRACES, VARIANTS, chosen
from airi_sim.workbench.efficiency import asked

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/performance.md").read_text()


@pytest.fixture
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "docs/performance.py"))


def test_tables_take_the_place_of_the_old_ones_and_nothing_else(script: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text(json.dumps([{"runs": [1.0, 2.0, 3.0]}]))
    (tmp_path / "bench.md").write_text("| case | CPU s |\n| --- | --- |\n| W1 | 1\\2 |\n")
    table = script["bench_of"](tmp_path)
    assert "medians of 3" in table
    new = script["update"](TEXT, "bench", table)
    assert "| W1 | 1\\2 |" in new
    outside = re.compile("<!-- bench -->.*?<!-- /bench -->", re.DOTALL)
    assert outside.sub("", new) == outside.sub("", TEXT)
    assert script["update"](new, "bench", table) == new
    with pytest.raises(SystemExit, match="no place"):
        script["update"]("a document without marks", "bench", table)


def test_a_folder_that_is_none_of_a_bench_is_refused(
    script: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, says in (([], "one folder is needed"), ([str(tmp_path)], "has no bench.json")):
        assert script["main"](words) == 2
        said = capsys.readouterr().err
        assert says in said and len(said.splitlines()) == 1


def test_the_variants_are_explained_and_the_cases_that_are_named_exist() -> None:
    assert [
        name for name in [*VARIANTS, "W1_10k_r64", "mooncake"] if f"`{name}`" not in TEXT and name not in TEXT
    ] == []
    named = set(re.findall(r"bench\.cases=\[?([\w+,]+)", TEXT))
    assert named
    for names in named:
        assert asked(names.split(",")) or chosen(names.split(","), "/nowhere")


def test_every_set_is_made_of_cases() -> None:
    assert {case.name.split("+")[0] for case in chosen("all", None)} == set(TRACES)
    assert len(chosen(list(SETS), None)) == len(set(SETS["all"]))

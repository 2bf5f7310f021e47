"""docs/policies.md is what docs/policies.py makes of the docstrings and yamls of today."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from airi_sim.workbench.plugins import METHODS

DOCS = Path(__file__).parents[2] / "docs"
CONF = DOCS.parent / "conf"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "policies.py"))


def test_the_tables_are_of_today(script: dict[str, Any]) -> None:
    assert (DOCS / "policies.md").read_text() == script["document"](), "run: make docs"


def test_every_kind_has_a_table_and_every_yaml_a_row(script: dict[str, Any]) -> None:
    assert set(script["TITLES"]) == {*METHODS, "predictor"}
    rows = [line for line in (DOCS / "policies.md").read_text().splitlines() if line.startswith("| [`")]
    files = [*CONF.glob("policy/*/*.yaml"), *CONF.glob("predictor/*.yaml")]
    assert sorted(row.split("](../")[1].split(")")[0] for row in rows) == sorted(
        path.relative_to(DOCS.parent).as_posix() for path in files
    )
    assert all(len(row.split(" | ")[2]) > 20 for row in rows), "a rule is at least a sentence"


def test_a_source_is_in_parentheses_and_has_a_year_or_a_number(script: dict[str, Any]) -> None:
    text = "Short first (SSJF, arXiv:2306.03503), `w` a token (null: 1), kept (nginx), once more (Mok 1983)."
    assert script["SOURCE"].findall(text) == ["SSJF, arXiv:2306.03503", "Mok 1983"]
    assert script["SOURCE"].sub("", text) == "Short first, `w` a token (null: 1), kept (nginx), once more."


def test_parameters_come_with_their_remarks(script: dict[str, Any]) -> None:
    path = CONF / "policy/queue/las.yaml"
    assert [*script["parameters"](path)] == [
        "`quantum=64` (output tokens ahead of the head at which a running job makes way)"
    ]


def test_claims_are_those_of_the_classes(script: dict[str, Any]) -> None:
    from airi_sim.policies.batchers import ChunkedPrefill
    from airi_sim.policies.queues import Edf, Fcfs, Lars, Vtc

    found = {cls: [*script["claims"](cls)] for cls in (Fcfs, Edf, Lars, Vtc, ChunkedPrefill)}
    assert found == {
        Fcfs: ["timeless"], Edf: ["timeless", "makes way"], Lars: ["horizon", "overtakes"], Vtc: ["horizon"],
        ChunkedPrefill: ["greedy"],
    }  # fmt: skip

"""Long runs: rows go to files while the run goes on, and nobody can tell from what it left behind."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pyarrow import parquet

from airi_sim.core.log import TABLES, Log
from airi_sim.policies.batchers import ChunkedPrefill
from airi_sim.results.recorder import Recorder
from airi_sim.workbench import build, staging
from airi_sim.workbench.execute import PARTIAL

if TYPE_CHECKING:
    from tests.workbench.conftest import Done, Run

MIXED = (
    "workload.n=300", "workload.rate=400", "workload.tenants={a: 3, b: 1}", "policy/queue=vtc", "pool.replicas=2",
    "server.kv_blocks=120", "server.max_model_len=1000", "slo.ttft_s=0.5",
)  # fmt: skip
"""Preemptions, two tenants, prompts that are refused."""


@pytest.fixture
def streaming(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes a hundred thousand rows elsewhere takes a hundred here."""
    monkeypatch.setattr(build, "Log", partial(Log, chunk=100))


def summary(done: Done) -> dict[str, Any]:
    found = json.loads((done.folder / "summary.json").read_text())
    del found["engine"]
    return found


def tables(folder: Path) -> dict[str, Any]:
    return {name: parquet.read_table(folder / f"{name}.parquet") for name in TABLES}


def test_a_streamed_run_leaves_what_any_run_leaves(airi: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = airi(*MIXED, "results.timeline=true")
    figures, rows = summary(whole), tables(whole.folder)
    files, line = {path.name for path in whole.folder.iterdir()}, (whole.folder / "timeline.json.gz").read_bytes()
    assert figures["preemptions"] > 0 and figures["requests"]["rejected"] > 0
    parts: list[int] = []
    monkeypatch.setattr(build, "Log", partial(Log, chunk=100))
    monkeypatch.setattr(Recorder, "__call__", counting(Recorder.__call__, parts))
    streamed = airi(*MIXED, "results.timeline=true")
    assert len(parts) > 3 * len(TABLES) and max(parts) < 400
    assert summary(streamed) == figures
    assert tables(streamed.folder) == rows
    assert {path.name for path in streamed.folder.iterdir()} == files
    assert (streamed.folder / "timeline.json.gz").read_bytes() == line


def counting(method: Any, parts: list[int]) -> Any:
    def call(self: Recorder, name: str, rows: list[Any]) -> None:
        parts.append(len(rows))
        method(self, name, rows)

    return call


@pytest.mark.usefixtures("streaming")
def test_without_tables_the_figures_are_the_same_and_no_rows_are_left(airi: Run) -> None:
    with_tables = summary(airi(*MIXED))
    without = airi(*MIXED, "results.tables=false")
    assert summary(without) == with_tables
    assert sorted(path.name for path in without.folder.iterdir()) == ["config.yaml", "summary.json"]


class Tires(ChunkedPrefill):
    """Fails in the middle of the run."""

    def form(self, draft: Any, queue: Any, now: float) -> None:
        if now > 0.6:
            raise RuntimeError("tired")
        super().form(draft, queue, now)


class Interrupted(Tires):
    """As if somebody pressed Ctrl-C there."""

    def form(self, draft: Any, queue: Any, now: float) -> None:
        try:
            super().form(draft, queue, now)
        except RuntimeError:
            raise KeyboardInterrupt from None


@pytest.mark.usefixtures("streaming")
@pytest.mark.parametrize(("policy", "code"), [("Tires", 2), ("Interrupted", 130)])
def test_a_failed_run_loses_nothing_it_finished(airi: Run, policy: str, code: int) -> None:
    words = ("workload.n=300", "workload.rate=400")
    failed = airi(*words, f"policy.batcher._target_={__name__}.{policy}")
    part = failed.folder / PARTIAL
    assert failed.code == code and not (failed.folder / "summary.json").exists()
    assert sorted(path.stem for path in part.iterdir()) == sorted(["config", *TABLES])
    kept = tables(part)
    assert f"{len(kept['requests'])} requests" in failed.err and str(part) in failed.err
    whole = airi(*words)
    rows = {row["request"]: row for row in tables(whole.folder)["requests"].to_pylist()}
    early = [row["request"] for row in rows.values() if row["finish_s"] < 0.6]
    assert 0 < len(early) <= len(kept["requests"])
    assert all(row == rows[row["request"]] for row in kept["requests"].to_pylist())
    assert not part.exists(), "what an earlier run left is not about this one"


@pytest.mark.usefixtures("streaming")
def test_a_failure_while_the_files_are_written_keeps_them(airi: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(staging.Staging, "publish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            airi("workload.n=300", "workload.rate=400")
    folder = airi("workload.n=1", "policy/queue=vtc", "workload.rate=0").folder  # bad input: leaves what is there
    assert len(tables(folder / PARTIAL)["requests"]) == 300


@pytest.mark.usefixtures("streaming")
def test_a_long_run_that_is_refused_afterwards_leaves_nothing(airi: Run) -> None:
    words = ("accelerator=a10g", "workload.n=300", "workload.rate=400")
    assert "hardware.strict=true" in airi(*words, "hardware.strict=true").sentence
    assert airi(*words).code == 0


def test_a_short_run_that_fails_leaves_nothing(airi: Run) -> None:
    assert "tired" in airi("workload.n=300", f"policy.batcher._target_={__name__}.Tires").sentence

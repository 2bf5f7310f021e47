"""airi study and airi bench: what they claim about seeds, pairs and traces."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from airi_sim.workbench.cli import main

SMALL = ["workload.n=80", "workload.rate=40", "server.max_num_seqs=4"]


def grid(folder: Path, *more: str) -> list[dict[str, str]]:
    sets = "study.policies={a: {queue: fcfs}, same: {queue: fcfs}, b: {queue: sjf}}"
    assert main(["study", *SMALL, sets, "study.seeds=[0,1,2]", f"hydra.run.dir={folder}", *more]) == 0
    with (folder / "study.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_study_pairs_the_seeds_so_the_same_policies_differ_by_nothing(tmp_path: Path) -> None:
    rows = grid(tmp_path)
    same = [row for row in rows if row["policies"] == "same"]
    assert same
    assert all(float(row["difference"]) == float(row["d_low"]) == float(row["d_high"]) == 0 for row in same)
    other = {row["figure"]: row for row in rows if row["policies"] == "b"}
    assert float(other["ttft_mean_s"]["difference"]) != 0
    assert (tmp_path / "load-1" / "b" / "seed-2" / "summary.json").is_file()


def test_a_higher_load_is_the_same_requests_closer_together(tmp_path: Path) -> None:
    rows = grid(tmp_path, "study.loads=[0.5,2.0]")
    mean = {(row["load"], row["policies"]): float(row["mean"]) for row in rows if row["figure"] == "e2e_mean_s"}
    assert mean["2.0", "a"] > mean["0.5", "a"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("study.policies=null", "at least two"),
        ("study.seeds=[0]", "at least two seeds"),
        ("study.loads=[0]", "study.loads"),
        ("study.seeds=[-1]", "study.seeds"),
        ("study.policies={a: {queu: fcfs}, b: {queue: sjf}}", "queu"),
    ],
)
def test_a_study_that_cannot_be_says_why(
    override: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    sets = "study.policies={a: {queue: fcfs}, b: {queue: sjf}}"
    assert main(["study", *SMALL, sets, override, f"hydra.run.dir={folder}"]) == 2
    assert said in capsys.readouterr().err
    assert not folder.exists()


def test_bench_reports_every_trace_and_judges_no_speed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "bench.traces=[W3]", "bench.repeat=1", f"data.dir={tmp_path}", f"hydra.run.dir={tmp_path / 'b'}"]
    assert main(words) == 0
    row = json.loads((tmp_path / "b" / "bench.json").read_text())[0]
    assert row["source"] == "generated"
    assert row["finished"] == row["requests"] == 2000
    assert row["cpu_s"] > 0
    assert json.loads((tmp_path / "b" / "checks.json").read_text())[0]["passed"]
    assert "W3" in capsys.readouterr().out


def test_bench_knows_its_traces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "bench.traces=[W9]", f"hydra.run.dir={tmp_path / 'b'}"]) == 2
    assert "W1" in capsys.readouterr().err

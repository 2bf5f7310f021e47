"""airi study and airi bench: what they claim about seeds, pairs and traces."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from airi_sim.workbench.cli import main
from airi_sim.workbench.verbs.bench import checks_of

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


def bench(folder: Path, *words: str) -> tuple[int, list[dict[str, Any]]]:
    code = main(["bench", "bench.repeat=1", f"data.dir={folder}", f"hydra.run.dir={folder / 'b'}", *words])
    return code, json.loads((folder / "b" / "bench.json").read_text())


def test_bench_reports_every_case_and_judges_no_speed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, rows = bench(tmp_path, "bench.cases=[W3, 10k_r16+jsq]", "workload.n=150")
    assert code == 0
    assert [(row["case"], row["source"], row["replicas"]) for row in rows] == [
        ("W3", "generated", 1),
        ("10k_r16+jsq", "generated", 16),
    ]
    for row in rows:
        assert row["finished"] == row["requests"] == 150
        assert 0 < row["cpu_s"] < row["command_cpu_s"]
        assert row["peak_rss_mb"] > 0
    checks = json.loads((tmp_path / "b" / "checks.json").read_text())
    assert len(checks) == 4 and all(check["passed"] for check in checks)
    assert "10k_r16+jsq" in capsys.readouterr().out
    assert (tmp_path / "b" / "bench.md").read_text().count("\n") == 4


def test_a_yardstick_runs_beside_traces_from_files(tmp_path: Path) -> None:
    rows = "\n".join([f"{i},100,10" for i in range(30)])
    (tmp_path / "W1.csv").write_text(f"arrived_at,num_prefill_tokens,num_decode_tokens\n{rows}")
    other = tmp_path / "other.py"
    other.write_text("import sys\nprint(*sys.argv[1:], 'cpu 0.125 wall 0.2')")
    command = f"bench.yardstick='{sys.executable} {other} {{trace}} {{replicas}}'"
    _, (row,) = bench(tmp_path, "bench.cases=[W1]", command)
    assert (row["source"], row["requests"], row["yardstick_s"]) == ("trace", 30, 0.125)
    assert row["over_yardstick"] == row["cpu_s"] / 0.125


def test_bench_counts_who_was_rejected_and_misses_who_is_neither(tmp_path: Path) -> None:
    (tmp_path / "W1.csv").write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n0,100,10\n0,5000,10\n1,100,10")
    code, (row,) = bench(tmp_path, "bench.cases=[W1]", "server.max_model_len=1000")
    assert (code, row["requests"], row["finished"], row["rejected"]) == (0, 3, 2, 1)
    first, _ = json.loads((tmp_path / "b" / "checks.json").read_text())
    assert first["passed"] and "1 rejected, 0 neither" in first["detail"]
    lost, _ = checks_of({**row, "finished": 1})
    assert not lost["passed"] and "1 rejected, 1 neither" in lost["detail"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("bench.cases=[W9]", "W1_10k_r64"),
        ("bench.cases=W9", "quick"),
        ("bench.cases=[W1+fast]", "vtc8"),
        ("bench.cases=[]", "bench.cases"),
        ("bench.yardstick=nowhere.py", "nowhere.py"),
        ("bench.yardstick='echo fast'", "cpu SECONDS"),
        ("bench.dynamo=/nowhere/python", "/nowhere/python"),
    ],
)
def test_a_bench_that_cannot_be_says_why(
    override: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "W1.csv").write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n0,100,10")
    folder = tmp_path / "out"
    words = [override] if "cases" in override else [override, "bench.cases=[W1]"]
    assert main(["bench", "bench.repeat=1", f"data.dir={tmp_path}", *words, f"hydra.run.dir={folder}"]) == 2
    assert said in capsys.readouterr().err
    assert not folder.exists()

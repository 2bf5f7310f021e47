"""Floor 6: experiments run from the command line; the sweep gives every policy the same requests."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from airi_sim.results.run import load
from airi_sim.workbench.cli import VERBS
from experiments import load_sweep

ROOT = Path(__file__).parents[2]
SMALL = [
    "workload.n=60",
    "sweep.values=[20,400]",
    "sweep.seeds=[3]",
    "~sweep.policies.round_robin_fcfs",
]


def module(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"experiments.{name}", *words], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def test_every_verb_but_those_of_later_issues_has_a_module() -> None:
    assert {path.stem for path in (ROOT / "experiments").glob("*.py")} >= {*VERBS}


def test_the_module_is_the_verb(tmp_path: Path) -> None:
    done = module("run", "workload.n=20", f"hydra.run.dir={tmp_path / 'r'}")
    assert (done.returncode, done.stderr) == (0, "")
    assert load(tmp_path / "r").summary["requests"]["finished"] == 20


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_bad_input_ends_with_2_and_a_sentence(verb: str) -> None:
    done = module(verb, "workload=nonsense" if verb != "report" else "no/such/folder")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("airi: ")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    assert load_sweep.main([*SMALL, f"hydra.run.dir={folder}"]) == 0
    return folder


def test_the_sweep_writes_a_row_a_run_and_a_picture(swept: Path) -> None:
    with (swept / "load_sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["policies"], float(row["load"])) for row in rows] == [
        ("jsq_fcfs", 20), ("jsq_fcfs", 400), ("jsq_sjf", 20), ("jsq_sjf", 400),
    ]  # fmt: skip
    assert all(row["finished"] == "60" for row in rows)
    assert (swept / "load_sweep.png").stat().st_size > 10_000


def test_policies_see_the_same_requests_and_load_only_stretches_time(swept: Path) -> None:
    what = ["request", "prompt_tokens", "output_tokens"]
    runs = {
        (name, at): load(swept / name / f"load-{at}" / "seed-3").requests.sort_values("request").reset_index()
        for name in ("jsq_fcfs", "jsq_sjf")
        for at in (20, 400)
    }
    first = runs["jsq_fcfs", 20]
    assert all(run[what].equals(first[what]) for run in runs.values())
    assert runs["jsq_sjf", 20]["arrival_s"].equals(first["arrival_s"])
    assert runs["jsq_sjf", 400]["arrival_s"].to_numpy() * 20 == pytest.approx(first["arrival_s"].to_numpy())


def test_goodput_is_the_load_that_nine_in_ten_survive() -> None:
    def point(name: str, at: float, share: float | None) -> load_sweep.Point:
        return load_sweep.Point(name, at, 0, 1, 1.0, None, None, None, share)

    told = [point("good", 10, 1.0), point("good", 20, 0.8), point("best", 10, 1.0), point("best", 20, 0.95),
            point("bad", 10, 0.5), point("silent", 10, None)]  # fmt: skip
    assert load_sweep.goodput(told).splitlines() == [
        "good: 90 % in SLO up to 15", "best: 90 % in SLO up to 20 or more", "bad: 90 % in SLO at no load",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("sweep.values=[]", "sweep.values must be a list with at least one entry"),
        ("sweep.key=workload.rats", "rats"),
        ("sweep.policies.jsq_sjf.queue=sfj", "did you mean 'sjf'"),
    ],
)
def test_a_sweep_that_cannot_run_says_why(
    word: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_sweep.main([*SMALL, word, f"hydra.run.dir={tmp_path}"]) == 2
    assert says in capsys.readouterr().err

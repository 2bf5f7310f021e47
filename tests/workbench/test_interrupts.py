"""Measured runs that are stopped: by Ctrl-C, by a kill, by a failure. What they had measured is there, and readable."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pyarrow import parquet

import airi_sim
from airi_sim.core.errors import BadInput
from airi_sim.core.log import TABLES
from airi_sim.policies.batchers import ChunkedPrefill
from airi_sim.results.parts import CHECKPOINT, PARTIAL, Parts, PartWriter
from airi_sim.workbench.cli import main
from airi_sim.workbench.interrupts import Interrupted, Interrupts

if TYPE_CHECKING:
    from tests.workbench.conftest import Run

NANO = ("validate=parity", "workload.rate=inf", "workload.n=20000", "results.checkpoint_s=0.2")
"""Minutes of passes of a very small model, with requests waiting all the time."""
COMMAND = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from airi_sim.workbench.cli import main; sys.exit(main(sys.argv[1:]))"
)


@contextmanager
def measuring(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A run in a process of its own, which has written two parts, and in them requests that are over."""
    words = [sys.executable, "-c", COMMAND, "run", *NANO, f"hydra.run.dir={folder}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) as run:
        try:
            end = time.monotonic() + 120
            while parts_of(folder) < 2 or not list((folder / PARTIAL).glob("requests-*")):
                assert run.poll() is None and time.monotonic() < end, "no part was written"
                time.sleep(0.05)
            yield run
        finally:
            run.kill()


def parts_of(folder: Path) -> int:
    path = folder / PARTIAL / CHECKPOINT
    return int(json.loads(path.read_text())["parts"]) if path.exists() else 0


@pytest.mark.real
def test_ctrl_c_ends_a_measured_run_with_all_it_measured(tmp_path: Path) -> None:
    with measuring(tmp_path / "run") as process:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said.strip().splitlines()[-1] == f"airi: interrupted; what was measured so far is in {tmp_path / 'run'}."
    run = airi_sim.load(tmp_path / "run")
    assert sorted(path.name for path in run.folder.iterdir()) == sorted(
        ["config.yaml", "summary.json", *[f"{name}.parquet" for name in (*TABLES, "passes")]]
    )
    counts = run.requests["status"].value_counts().to_dict()
    assert counts["unfinished"] > 0 and counts["finished"] > 0
    assert run.summary["requests"]["offered"] == len(run.requests) == sum(counts.values())
    assert run.summary["provenance"]["interrupted"] == "SIGINT"
    assert "are unfinished" in run.summary["provenance"]["warnings"][-1]
    assert run.plans["passes"].sum() <= len(run.passes) <= run.plans["passes"].sum() + 2, "one in flight on each server"
    whole = run.passes[["prep_s", "forward_s", "sample_s"]].sum(axis=1)
    assert whole.to_numpy() == pytest.approx(run.passes["seconds"].to_numpy())


@pytest.mark.real
def test_after_a_kill_the_parts_are_a_run_that_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    with measuring(folder) as process:
        process.kill()
        process.wait()
    run = airi_sim.load(folder)
    assert set(run.requests["status"]) == {"finished"}
    assert run.requests["request"].is_unique and set(run.jobs["request"]) <= set(run.requests["request"])
    counts = run.summary["requests"]
    assert counts["unfinished"] > 0
    assert counts["offered"] == len(run.requests) + counts["unfinished"]
    assert run.summary["engine"]["passes"] == len(run.plans) <= len(run.passes)
    assert run.summary["provenance"]["interrupted"] == "killed"
    assert run.config["model"]["name"] == "nano"
    assert main(["report", str(folder)]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(folder / "report.html")
    assert "did not come to its end (it was killed)" in said.err
    assert f"{counts['unfinished']:,} were under way" in said.err
    assert "did not come to its end" in (folder / "report.html").read_text()


class Fails(ChunkedPrefill):
    """Raises in the middle of the run."""

    def form(self, draft: Any, queue: Any, now: float) -> None:
        if now > 0.02:
            raise RuntimeError("tired")
        super().form(draft, queue, now)


@pytest.mark.real
def test_a_measured_run_that_fails_keeps_its_parts_until_the_next_one(airi: Run) -> None:
    words = (*NANO, "workload.n=40")
    mine = f"policy.batcher._target_={__name__}.Fails"
    failed = airi(*words, "results.checkpoint_s=0", mine, small=False)
    assert failed.code == 2 and f"airi report {failed.folder}" in failed.err
    left = airi_sim.load(failed.folder)
    assert "tired" in left.summary["provenance"]["interrupted"]
    assert len(left.passes) > 1
    again = airi(*words, small=False)
    assert again.code == 0 and not (again.folder / PARTIAL).exists()
    assert airi_sim.load(again.folder).summary["requests"]["finished"] == 40
    assert airi(*words, "results.checkpoint_s=null", mine, small=False).code == 2
    assert airi_sim.load(again.folder).summary["requests"]["finished"] == 40, (
        "what failed at once leaves what was there"
    )


def test_a_part_counts_when_the_checkpoint_names_it(tmp_path: Path) -> None:
    decision = (0, "gateway", "P", 1000, "default/0", 0)
    state = {"arrived": 5, "requests": 0, "duration_s": 1.0, "failure": ""}
    writer = PartWriter(tmp_path / PARTIAL, "torch")
    writer.open()
    writer.write({"decisions": [decision]}, [{"seconds": 1.0}], state)
    writer.write({"decisions": [decision, decision]}, [], state)
    later = tmp_path / PARTIAL / "decisions-00003.parquet"
    later.write_bytes((tmp_path / PARTIAL / "decisions-00002.parquet").read_bytes())
    parts = Parts.of(tmp_path)
    assert parts is not None
    assert (parts.table("decisions").num_rows, parts.table("passes").num_rows, parts.table("jobs").num_rows) == (
        3,
        1,
        0,
    )
    assert parts.table("jobs").column_names == list(TABLES["jobs"])
    assert parquet.read_table(later).num_rows == 2, "each part is a file that anybody can read"
    assert "5 were under way" in parts.missing()
    (tmp_path / PARTIAL / CHECKPOINT).write_text("{")
    with pytest.raises(BadInput, match="cannot be read as JSON"):
        airi_sim.load(tmp_path)


class TestInterrupts:
    """Signals of this process."""

    @pytest.fixture(autouse=True)
    def _as_in_the_foreground(self) -> Iterator[None]:
        """A shell lets jobs in the background ignore Ctrl-C."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)

    def test_a_first_signal_waits_for_a_check(self) -> None:
        done = []

        def one_pass(interrupts: Interrupts) -> None:
            signal.raise_signal(signal.SIGTERM)
            done.append("the pass")
            interrupts.check()

        with Interrupts() as interrupts, pytest.raises(Interrupted) as stop, interrupts.noted():
            one_pass(interrupts)
        assert done == ["the pass"]
        assert stop.value.signal == signal.SIGTERM

    def test_a_second_signal_does_not(self) -> None:
        done = []

        def one_pass() -> None:
            signal.raise_signal(signal.SIGINT)
            done.append("half of the pass")
            signal.raise_signal(signal.SIGINT)
            done.append("the other half")

        with Interrupts() as interrupts, pytest.raises(Interrupted), interrupts.noted():
            one_pass()
        assert done == ["half of the pass"]

    def test_outside_a_run_it_is_raised_at_once(self) -> None:
        with Interrupts(), pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    def test_who_sleeps_wakes_up(self) -> None:
        slept: list[float] = []

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 3:
                signal.raise_signal(signal.SIGINT)

        with Interrupts() as interrupts, pytest.raises(Interrupted), interrupts.noted():
            interrupts.sleeping(sleep)(1000.0)
        assert len(slept) == 3 and max(slept) < 1

    def test_handlers_are_given_back_and_what_is_ignored_stays_ignored(self) -> None:
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            with Interrupts():
                assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
                assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        finally:
            signal.signal(signal.SIGTERM, before)

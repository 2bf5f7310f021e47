"""The layouts of an experiment see the same requests, and what is drawn is what ran."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from airi_sim.results.run import load
from experiments import disaggregation

SMALL = ["workload.n=60", "sweep.rates=[80]", "sweep.seeds=[3]", "~sweep.layouts.p1_d3"]


def test_layouts_see_the_same_requests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert disaggregation.main([*SMALL, f"hydra.run.dir={tmp_path / 'd'}"]) == 0
    table = pd.read_csv(tmp_path / "d" / "disaggregation.csv")
    assert (tmp_path / "d" / "disaggregation.png").stat().st_size > 10_000
    assert list(table["layout"]) == ["both_4", "p2_d2"]
    assert table["move_mean_s"].isna().tolist() == [True, False]
    runs = [load(tmp_path / "d" / name / "rate-80" / "seed-3") for name in ("both_4", "p2_d2")]
    columns = ["request", "arrival_s", "prompt_tokens", "output_tokens"]
    first, second = (run.requests.sort_values("request")[columns].reset_index(drop=True) for run in runs)
    pd.testing.assert_frame_equal(first, second)
    assert "p2_d2" in capsys.readouterr().out


def test_bad_input_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert disaggregation.main(["sweep.rates=[80]", "pool.tp=x"]) == 2
    assert capsys.readouterr().err.startswith("disaggregation: pool.tp=x")

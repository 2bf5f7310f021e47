"""The slice of the Azure trace and its stand-in: one config, the same statistics, and the run says which it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from airi_sim.core.errors import BadInput
from airi_sim.workbench.build import build_workload
from airi_sim.workbench.config import load_config, plain


def workload(folder: Path, *more: str) -> Any:
    config = plain(load_config(["workload=azure_slice", *more]))
    config["workload"]["data_dir"] = str(folder)
    return build_workload(config)[0]


def figures(items: list[Any]) -> np.ndarray:
    """Requests per second, prompt tokens, output tokens."""
    seconds = items[-1].request.arrival - items[0].request.arrival
    tokens = [(item.request.tokens, item.output_tokens) for item in items]
    return np.array([len(items) / seconds, *np.mean(tokens, axis=0)])


def test_without_the_trace_a_stand_in_runs_and_says_so(tmp_path: Path) -> None:
    slow, fast = (workload(tmp_path, f"workload.rate_scale={scale}", "workload.limit=50") for scale in (1, 4))
    assert "stand-in" in slow.warnings[0]
    slow, fast = list(slow), list(fast)
    assert len(slow) == len(fast) == 50
    assert [item.output_tokens for item in slow] == [item.output_tokens for item in fast]
    assert [item.request.arrival / 4 for item in slow] == pytest.approx([item.request.arrival for item in fast])


def test_programs_hold_for_the_stand_in_too(tmp_path: Path) -> None:
    assert {item.request.program for item in workload(tmp_path, "workload.program=rag", "workload.limit=3")} == {"rag"}


def test_a_bad_rate_scale_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"workload\.rate_scale"):
        workload(tmp_path, "workload.rate_scale=-1")


def test_the_stand_in_has_the_statistics_of_the_slice(data_dir: Path, tmp_path: Path) -> None:
    real, made = workload(data_dir), workload(tmp_path, "workload.limit=4000")
    assert not real.warnings
    assert figures(list(made)) == pytest.approx(figures(list(real)), rel=0.35)

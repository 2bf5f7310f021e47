"""Every experiment explains itself, and refuses lists that are none in one sentence, before anything runs."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest

from experiments import disaggregation, load_sweep, mooncake
from experiments.parts import start

EXPERIMENTS = ("disaggregation", "load_sweep", "mooncake", "power", "queues", "vtc_logs")
BAD = [
    (disaggregation, "sweep.rates=[]", "sweep.rates must be a list with at least one entry"),
    (disaggregation, "sweep.rates=[foo]", "each of sweep.rates must be a number greater than 0, not 'foo'"),
    (disaggregation, "+sweep.layouts.bad={p: {role: prefil}}", "prefil"),
    (disaggregation, "+sweep.layouts.bad=3", "sweep.layouts.bad must be pools by name"),
    (load_sweep, "sweep.values=[]", "sweep.values must be a list with at least one entry"),
    (load_sweep, "sweep.values=[foo]", "each of sweep.values must be a number greater than 0"),
    (mooncake, "mooncake.sizes=[]", "mooncake.sizes must be a list with at least one entry"),
    (mooncake, "mooncake.sizes=[0]", "each of mooncake.sizes must be a number greater than 0, not 0"),
    (mooncake, "mooncake.sizes=[-5]", "each of mooncake.sizes must be a number greater than 0, not -5"),
    (mooncake, "mooncake.routers=[]", "mooncake.routers must be a list with at least one entry"),
]


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_the_docstring(
    name: str, flag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = import_module(f"experiments.{name}")
    monkeypatch.setattr(sys, "argv", ["experiment", flag])
    assert start(module.main, module.__doc__) == 0
    out = capsys.readouterr().out
    assert f"python -m experiments.{name}" in out and len(out.splitlines()) > 5


@pytest.mark.parametrize(("module", "word", "says"), BAD, ids=[word for _, word, _ in BAD])
def test_bad_lists_are_refused_before_anything_runs(
    module: object, word: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert module.main([word, f"hydra.run.dir={tmp_path / 'r'}"]) == 2  # type: ignore[attr-defined]
    said = capsys.readouterr().err
    assert says in said and len(said.splitlines()) == 1 and not (tmp_path / "r").exists()

"""The theory suite: its quick part passes, it bites, and its verdicts are what they say."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from airi_sim.core.errors import BadInput
from airi_sim.workbench.cli import main
from airi_sim.workbench.theory import suite
from airi_sim.workbench.theory.families import one_server, orders
from airi_sim.workbench.theory.rig import Slots, Station, run
from airi_sim.workbench.theory.rows import (
    ASYMPTOTIC,
    BOUND,
    EXACT,
    Claim,
    Experiment,
    Row,
    Sample,
    estimate,
    judge,
    perform,
)
from airi_sim.workbench.theory.sizes import exponential
from airi_sim.workbench.verbs.validate import verdict

EFFORT = 0.2
LITTLE = 0.05
"""Enough to see what is far off."""


@pytest.mark.parametrize("family", suite.FAMILIES)
def test_the_quick_part_is_within_its_limits(family: str) -> None:
    rows = suite.run([family], quick=True, effort=EFFORT)
    assert rows
    assert [str(row) for row in rows if not row.passed] == []


@pytest.mark.slow
def test_every_row_is_within_its_limits() -> None:
    rows = suite.run(suite.FAMILIES, effort=0.5, workers=None)
    assert [str(row) for row in rows if not row.passed] == []


def test_names_are_unique_and_every_row_says_where_its_form_is_from() -> None:
    everything = [one for family in suite.FAMILIES for one in suite.experiments(family)]
    claims = [claim for one in everything for claim in one.claims]
    assert len({one.name for one in everything}) == len(everything)
    assert len({claim.name for claim in claims}) == len(claims) > 100
    assert all(claim.source and claim.tag in (EXACT, ASYMPTOTIC, BOUND) for claim in claims)
    assert all(claim.note for claim in claims if claim.tag == ASYMPTOTIC)


# -- it bites


def wrong(experiment: Experiment, by: float) -> Experiment:
    """The same experiment with forms that are off."""
    return replace(experiment, claims=tuple([replace(claim, form=claim.form * by) for claim in experiment.claims]))


def quick(family: str, word: str) -> Experiment:
    return next(one for one in suite.experiments(family) if one.quick and word in one.name)


@pytest.mark.parametrize(
    ("family", "word"), [("networks", "10 users"), ("batches", "at most 4"), ("lifecycle", "tries")]
)
def test_a_wrong_form_fails(family: str, word: str) -> None:
    experiment = quick(family, word)
    rows = perform(wrong(experiment, 1.2), family, 0, LITTLE)
    assert not any(row.passed for row in rows)
    assert all(row.error > row.limit for row in rows)
    assert {row.replications for row in rows} == {4 * experiment.replications}  # it was given a second look


def test_the_form_of_another_order_fails() -> None:
    """Shortest job first is no first come, first served."""
    experiment = quick("orders", "SJF")
    claims = tuple([replace(claim, form=1 + 4.0) for claim in experiment.claims])
    row = perform(replace(experiment, claims=claims), "orders", 0, LITTLE)[0]
    assert not row.passed and row.error > row.limit


def test_a_server_that_is_a_little_slower_is_found_on_the_path() -> None:
    who = one_server.customers(np.random.default_rng(1), 0.5, exponential(), 500)
    assert one_server.path_error(run([Station(Slots())], who), who) < one_server.PATH_S
    slower = replace(who, sizes=who.sizes + 1)
    assert one_server.path_error(run([Station(Slots())], slower), who) > one_server.PATH_S


def test_an_order_that_looks_at_sizes_breaks_the_conservation_law() -> None:
    from airi_sim.policies.queues import Sjf

    row = perform(orders._conservation(Sjf, quick=True), "orders", 0, LITTLE)[0]
    assert not row.passed and row.error > row.limit


# -- verdicts


def row_of(tag: str, engine: float, se: float, **more: float | bool) -> Row:
    return judge(Claim("x", "x", 10.0, "book", tag, **more), "family", engine, se, 5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "passed"),
    [
        (row_of(EXACT, 10.09, 0.0), True),
        (row_of(EXACT, 10.11, 0.0), False),
        (row_of(EXACT, 10.29, 0.1), True),
        (row_of(EXACT, 10.31, 0.1), False),
        (row_of(EXACT, 10.0, 0.3), False),
        (row_of(ASYMPTOTIC, 10.5, 0.0, allowance=0.45), True),
        (row_of(ASYMPTOTIC, 10.6, 0.0, allowance=0.45), False),
        (row_of(BOUND, 3.0, 0.0), True),
        (row_of(BOUND, 10.1, 0.0), False),
        (row_of(BOUND, 10.1, 0.1), True),
        (row_of(BOUND, 3.0, 0.0, above=True), False),
        (row_of(EXACT, 10.05, 0.0, absolute=0.01), False),
    ],
)
def test_verdicts(row: Row, passed: bool) -> None:
    assert row.passed is passed


@pytest.mark.parametrize(
    ("engine", "word"), [(10.0, "ok  "), (10.5, "open"), (11.0, "FAIL")], ids=["passed", "noisy", "failed"]
)
def test_what_is_too_noisy_to_tell_is_said_to_be_open(engine: float, word: str) -> None:
    check = row_of(EXACT, engine, 0.0 if engine == 10.0 else 0.25).check()
    assert verdict(check) == word
    assert ("raise theory.effort" in check["detail"]) == (word == "open")


def test_controls_take_out_what_they_explain() -> None:
    rng = np.random.default_rng(3)
    control = rng.normal(size=(40, 1))
    values = 5 + 2 * control[:, 0] + 0.01 * rng.normal(size=40)
    mean, se = estimate(values, control)
    plain, plain_se = estimate(values, np.empty((40, 0)))
    assert abs(mean - 5) < 4 * se < 0.02
    assert plain == pytest.approx(values.mean())
    assert plain_se == pytest.approx(values.std(ddof=1) / np.sqrt(40))
    assert se < plain_se / 50


def test_standard_errors_cover_the_mean_as_often_as_they_say() -> None:
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(300):
        controls = rng.normal(size=(20, 2))
        mean, se = estimate(controls @ [1.0, -2.0] + rng.exponential(size=20), controls)
        hits += abs(mean - 1) < 3 * se
    assert hits >= 285


def test_the_same_seed_gives_the_same_rows_and_another_others() -> None:
    experiment = Experiment(
        "x", lambda rng, n: Sample({"x": rng.normal(10, 0.1, n).mean()}), (Claim("x", "x", 10.0, "s"),)
    )
    first, again, other = (perform(experiment, "f", seed)[0].engine for seed in (0, 0, 1))
    assert first == again != other


# -- the command


def test_the_command_writes_checks_a_table_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["theory.families=[books,hardware]", "theory.quick=true", "theory.effort=0.1", "theory.workers=1"]
    assert main(["validate", "validate=theory", *words, f"hydra.run.dir={tmp_path}"]) == 0
    checks = json.loads((tmp_path / "checks.json").read_text())
    keys = {
        "name",
        "figure",
        "limit",
        "unit",
        "passed",
        "detail",
        "source",
        "closed_form",
        "engine",
        "se",
        "error",
        "tag",
    }
    assert all(keys <= set(check) for check in checks)
    assert all(check["passed"] and check["figure"] <= check["limit"] for check in checks)
    assert "| Little's law by server, random | exact |" in (tmp_path / "theory.md").read_text()
    assert (tmp_path / "theory.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.count("ok  ") == len(checks)


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("theory.families=[books,tandem]", "family of theory.families"),
        ("theory.families=books", "must be a list"),
        ("theory.effort=0", "theory.effort=0"),
        ("theory.workers=0", "theory.workers=0"),
        ("theory.quick=3", "theory.quick=3"),
        ("+theory.fast=1", "key of theory"),
    ],
)
def test_bad_input_is_one_sentence(word: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "validate=theory", word, f"hydra.run.dir={tmp_path / 'new'}"]) == 2
    error = capsys.readouterr().err
    assert says in error and len(error.strip().splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_a_failed_row_is_bold_and_the_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[[str], list[Experiment]] = suite.experiments
    monkeypatch.setattr(suite, "experiments", lambda family: [wrong(one, 1.5) for one in real(family)[:1]])
    words = ["theory.families=[hardware]", "theory.workers=1"]
    assert main(["validate", "validate=theory", *words, f"hydra.run.dir={tmp_path}"]) == 1
    assert "| **ring all-reduce" in (tmp_path / "theory.md").read_text()


def test_bad_families_are_found_before_anything_runs() -> None:
    with pytest.raises(BadInput, match="did you mean 'books'"):
        suite.families(["book"])

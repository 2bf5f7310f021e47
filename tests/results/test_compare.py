"""Comparisons: errors by their definition, a table people can read, decisions side by side."""

from __future__ import annotations

import math

import pytest

from airi_sim.results.compare import STATISTICS, compare, format_table, mean_size, row_name
from airi_sim.results.parity import Choice, first_divergence
from airi_sim.results.text import digits, percent, seconds


def test_a_run_equals_itself(make_run):
    table = compare(make_run(), make_run(), make_run())
    assert (table["error_pct"].dropna() == 0).all()
    assert (table["noise_pct"].dropna() == 0).all()
    assert {f"ttft_{kind}" for kind in STATISTICS} <= set(table.index)


def test_errors_are_relative_to_the_measurement(make_run):
    measured, sim, repeat = (make_run(name, slow=slow) for name, slow in (("m", 1.0), ("s", 1.1), ("r", 0.98)))
    row = compare(sim, measured, repeat).loc["e2e_mean"]
    assert row["error_pct"] == pytest.approx(100 * (row["sim"] - row["measured"]) / row["measured"])
    assert row["error_pct"] > 0
    assert row["noise_pct"] == pytest.approx(abs(100 * (repeat.summary["e2e_s"]["mean"] / row["measured"] - 1)))


def test_the_floors_stand_beside_each_error_and_the_mean_is_over_nine_figures(make_run):
    measured, sim, repeat, again = (
        make_run(n, slow=slow) for n, slow in (("m", 1), ("s", 1.1), ("r", 0.9), ("f", 1.05))
    )
    table = compare(sim, measured, repeat, again)
    assert list(table.columns[-2:]) == ["noise_pct", "selffit_pct"]
    assert table.loc["e2e_mean", "selffit_pct"] == pytest.approx(table.loc["e2e_mean", "error_pct"] / 2, rel=1e-3)
    nine = [abs(table.loc[f"{name}_{kind}", "error_pct"]) for name in ("ttft", "tpot", "e2e") for kind in STATISTICS]
    assert mean_size(table, "error_pct") == pytest.approx(sum(nine) / 9)
    assert math.isnan(mean_size(compare(sim, measured), "selffit_pct"))
    assert "selffit" in format_table(table).splitlines()[0]
    assert "selffit" not in format_table(compare(sim, measured)).splitlines()[0]


def test_what_is_undefined_or_zero_is_told_apart(make_run):
    base = make_run().summary
    other = base | {"preemptions": 3, "tpot_s": dict.fromkeys(base["tpot_s"])}
    table = compare(other, base)
    assert table.loc["tpot_p50", ["sim", "error_pct"]].isna().all()
    assert table["error_pct"].isna()["preemptions"]
    assert compare(base, base).loc["preemptions", "error_pct"] == 0


def test_the_table_is_fixed_width(make_run):
    lines = format_table(compare(make_run(), make_run("other", slow=1.2))).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert "noise" not in lines[0]
    assert any(line.startswith("TTFT p95") and line.endswith("%") for line in lines)


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("ttft_p50", "TTFT p50"),
        ("queue_mean", "queue mean"),
        ("output_tokens_per_s", "output tokens/s"),
        ("duration_s", "duration"),
    ],
)
def test_names_are_those_of_people(metric, name):
    assert row_name(metric) == name


def test_numbers_are_readable():
    assert [seconds(x) for x in (0.0123, 1.5, 12e-6, 4000.0, None)] == ["12.3 ms", "1.50 s", "12.0 us", "4,000 s", "-"]
    assert [digits(x) for x in (1234.5, 999.7, 12.34, 0.0)] == ["1,234", "1,000", "12.3", "0.00"]
    assert percent(0.1234) == "12.3 %"


def decisions(*choices: tuple[str, int, int, str]) -> list[tuple]:
    return [(order, where, "P", job, choice, index) for order, (where, index, job, choice) in enumerate(choices)]


def test_identical_decisions_are_counted(rows):
    told = first_divergence(rows["decisions"], rows["decisions"])
    assert told.identical
    count = len(rows["decisions"])
    assert str(told) == f"{count:,}/{count:,} decisions identical"


def test_places_may_interleave_differently():
    a = decisions(("x", 0, 1, "go"), ("y", 0, 2, "go"))
    b = decisions(("y", 0, 2, "go"), ("x", 0, 1, "go"))
    assert first_divergence(a, b).identical


def test_the_first_parting_is_shown_with_what_came_before():
    a = decisions(*[("x", i, i, "go") for i in range(6)], ("y", 9, 9, "a"))
    b = decisions(*[("x", i, i, "go" if i < 5 else "stop") for i in range(6)], ("y", 9, 9, "b"))
    told = first_divergence(a, b)
    assert (told.same, told.total, told.where, told.index) == (5, 7, "x", 5)
    assert (told.a, told.b) == (Choice(5, 5, "go"), Choice(5, 5, "stop"))
    assert [choice.job for choice in told.before] == [2, 3, 4]
    assert "5/7 decisions identical; first divergence at x" in str(told)


def test_ending_early_is_a_divergence():
    a = decisions(("x", 0, 1, "go"), ("x", 1, 2, "go"))
    assert first_divergence(a, a[:1]).b is None
    assert first_divergence(a[:1], a).a is None
    assert "no more decisions" in str(first_divergence(a, a[:1]))


def test_nothing_to_decide_is_identical():
    assert first_divergence([], []).identical

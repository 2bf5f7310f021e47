"""Energy in closed form against a sum over passes, and carbon against a sum over moments."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airi_sim.core.errors import BadInput
from airi_sim.results.columns import Columns
from airi_sim.results.cost import by_server, cost
from airi_sim.results.energy import Intensity, at_full_power

WORK = {
    "base": 0.2, "pass_s": 0.004, "prompt_s": 1e-5, "decode_s": 2e-5, "context_s": 4e-8, "experts_s": 0.003,
    "unused": 0.75,
}  # fmt: skip


def row(passes: int, first: float, step: float, decodes: int, prompt: int, context: int, start: float = 0.0) -> Any:
    seconds = passes * first + step * passes * (passes - 1) / 2
    return ("s", "pass", start, start + seconds, passes, decodes, prompt, context, 0, 0, first, 0)


def plans(*rows: Any) -> tuple[Columns, Any]:
    return Columns("plans", list(rows)), np.arange(len(rows))


def pass_by_pass(passes: int, first: float, step: float, decodes: int, prompt: int, context: int) -> float:
    drawn = 0.0
    for i in range(passes):
        new = decodes + prompt
        busy = WORK["pass_s"] + WORK["experts_s"] * (1 - WORK["unused"] ** new)
        busy += WORK["prompt_s"] * prompt + WORK["decode_s"] * decodes
        busy += WORK["context_s"] * (context + decodes * (i + 1))
        seconds = first + i * step
        drawn += min(seconds, WORK["base"] * seconds + busy)
    return drawn


ROWS = st.tuples(
    st.integers(1, 60),
    st.floats(1e-3, 0.05),
    st.floats(0.0, 1e-4),
    st.integers(0, 200),
    st.integers(0, 500),
    st.integers(0, 100_000),
)


@given(ROWS)
def test_merged_passes_draw_what_single_ones_do(numbers: Any) -> None:
    columns, rows = plans(row(*numbers))
    assert at_full_power(columns, rows, WORK)[0] == pytest.approx(pass_by_pass(*numbers), rel=1e-6, abs=1e-9)


def test_both_sides_of_the_limit_are_met_within_one_row() -> None:
    """Context grows until passes draw full power; and the other way round where passes grow longer faster."""
    for first, step in ((0.0165, 0.0), (0.0161, 4e-5)):
        ends = [(first + i * step, pass_by_pass(1, first + i * step, 0.0, 200, 0, 50_000 + 200 * i)) for i in (0, 49)]
        assert sorted(drawn < seconds - 1e-6 for seconds, drawn in ends) == [False, True], "the case is none"
        numbers = (50, first, step, 200, 0, 50_000)
        columns, rows = plans(row(*numbers))
        assert at_full_power(columns, rows, WORK)[0] == pytest.approx(pass_by_pass(*numbers), rel=1e-9)


def test_what_is_busy_and_not_known_better_draws_full_power() -> None:
    columns, rows = plans(row(3, 0.5, 0.0, 4, 0, 100))
    assert at_full_power(columns, rows, {})[0] == pytest.approx(1.5)


def test_a_pass_that_was_cut_off_drew_what_being_awake_costs() -> None:
    columns, rows = plans(("s", "pass", 0.0, 2.0, 0, 4, 0, 100, 0, 0, 0.0, 0))
    assert at_full_power(columns, rows, WORK)[0] == pytest.approx(0.2 * 2.0)


def test_passes_are_found_by_server_and_moves_are_none() -> None:
    move = ("link", "move", 0.0, 1.0, 1, 0, 100, 0, 0, 0, 1.0, 0)
    rows = [("b", *row(1, 1.0, 0.0, 1, 0, 1)[1:]), move, ("a", *row(1, 1.0, 0.0, 1, 0, 1)[1:]), move]
    found = {name: places.tolist() for name, places in by_server(Columns("plans", [*rows, rows[0]])).items()}
    assert found == {"a": [2], "b": [0, 4]}
    assert by_server(Columns("plans", [])) == {}


STEPS = [[0.0, 100.0], [2.0, 400.0], [5.0, 50.0]]


def test_an_integral_over_steps() -> None:
    grid = Intensity(STEPS)
    assert grid.until(np.array([0.0, 1.0, 2.0, 4.0, 5.0, 7.0])).tolist() == [0, 100, 200, 1000, 1400, 1500]
    assert grid.mean(np.array([1.0, 2.0]), np.array([3.0, 2.0])).tolist() == [250.0, 400.0]


@given(st.floats(0.0, 9.0), st.floats(0.0, 9.0))
def test_carbon_is_power_times_intensity_over_time(start: float, length: float) -> None:
    """One row of even power, against ten thousand moments."""
    columns, rows = plans(row(1, length, 0.0, 0, 0, 0, start))
    price = {"idle_watts": 10.0, "busy_watts": 110.0, "pue": 1.2, "gco2_per_kwh": STEPS}
    moments = np.linspace(0.0, 20.0, 10_001)[:-1] + 1e-3
    grid = np.select([moments < 2, moments < 5], [100.0, 400.0], 50.0)
    watts = 10.0 + 100.0 * ((moments >= start) & (moments < start + length))
    by_hand = 1.2 * float((grid * watts).sum()) * 20.0 / 10_000 / 3.6e6
    assert cost(columns, rows, 20.0, price)["gco2"] == pytest.approx(by_hand, abs=1.2 * 2 * 400 * 100 * 2e-3 / 3.6e6)


def test_a_grid_that_never_changes_is_one_number() -> None:
    draw = random.Random(1)
    columns, rows = plans(*[row(3, draw.random(), 0.0, 1, 0, 1, draw.uniform(0, 9)) for _ in range(20)])
    price = {"idle_watts": 10.0, "busy_watts": 110.0}
    bills = [cost(columns, rows, 20.0, {**price, "gco2_per_kwh": grid}) for grid in (250, [[0, 250], [3, 250]])]
    assert bills[0]["gco2"] == pytest.approx(bills[1]["gco2"])
    joules = bills[0]["joules"]
    assert joules is not None and bills[0]["gco2"] == pytest.approx(joules / 3.6e6 * 250)


def test_a_grid_out_of_order_is_refused() -> None:
    for steps in ([[1, 100]], [[0, 100], [0, 200]]):
        with pytest.raises(BadInput, match="begin at 0 seconds"):
            Intensity(steps)

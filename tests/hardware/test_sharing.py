"""Max-min fair sharing: the hand-solved examples, what makes rates max-min fair, and finish times against an oracle in
exact fractions that starts from scratch at every change."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airi_sim.hardware.sharing import Flow, Sharing, max_min

WIRES = "ABCDE"
CAPACITY = st.fixed_dictionaries({wire: st.integers(1, 40) for wire in WIRES})
ROUTES = st.lists(st.lists(st.sampled_from(WIRES), min_size=1, max_size=3, unique=True), min_size=1, max_size=8)
TRANSFERS = st.lists(
    st.tuples(
        st.integers(0, 12),  # begins
        st.integers(1, 60),  # bytes
        st.lists(st.sampled_from(WIRES), min_size=1, max_size=3, unique=True),
    ),
    min_size=1,
    max_size=9,
)


def test_two_wires_and_three_flows() -> None:
    assert max_min([["A"], ["A", "B"], ["B"]], {"A": 10, "B": 4}) == [8, 2, 2]


def test_three_wires_and_five_flows() -> None:
    routes = [["A"], ["A", "B"], ["B", "C"], ["C"], ["A", "B", "C"]]
    assert max_min(routes, {"A": 10, "B": 6, "C": 8}) == [6, 2, 2, 4, 2]


def test_no_wire_no_limit() -> None:
    assert max_min([[], ["A"]], {"A": 3}) == [float("inf"), 3]


@given(ROUTES, CAPACITY)
def test_every_flow_has_a_full_wire_on_which_nobody_is_faster(
    routes: list[list[str]], capacity: dict[str, int]
) -> None:
    """The property that only the max-min fair rates have; no wire carries more than it can."""
    rates = max_min(routes, capacity)
    load = {wire: sum(rate for rate, route in zip(rates, routes, strict=True) if wire in route) for wire in WIRES}
    fastest = {
        wire: max((r for r, route in zip(rates, routes, strict=True) if wire in route), default=0) for wire in WIRES
    }
    assert all(load[wire] <= capacity[wire] * (1 + 1e-9) for wire in WIRES)
    for rate, route in zip(rates, routes, strict=True):
        assert any(load[w] >= capacity[w] * (1 - 1e-9) and rate >= fastest[w] * (1 - 1e-9) for w in route)


@given(ROUTES, CAPACITY, st.randoms(use_true_random=False))
def test_the_order_of_the_flows_does_not_matter(routes: list[list[str]], capacity: dict[str, int], draw: Any) -> None:
    order = list(range(len(routes)))
    draw.shuffle(order)
    shuffled = max_min([routes[i] for i in order], capacity)
    assert shuffled == pytest.approx([max_min(routes, capacity)[i] for i in order])


def run(transfers: list[tuple[Any, Any, list[str]]], capacity: dict[str, Any]) -> list[float]:
    """When each transfer, begun in order of time, has sent its last byte."""
    sharing = Sharing(capacity)
    todo = sorted(range(len(transfers)), key=lambda i: transfers[i][0])
    flows = {i: Flow(transfers[i][2], transfers[i][1]) for i in todo}
    while todo or sharing.flows:
        if todo and transfers[todo[0]][0] <= sharing.wakeup():
            begun = todo.pop(0)
            sharing.begin(flows[begun], float(transfers[begun][0]))
        else:
            sharing.settle(sharing.wakeup())
    return [flows[i].end for i in range(len(transfers))]


def oracle(transfers: list[tuple[int, int, list[str]]], capacity: dict[str, int]) -> list[Fraction]:
    """The same in exact fractions, all rates anew from scratch at every change."""
    exact = {wire: Fraction(width) for wire, width in capacity.items()}
    left = {i: Fraction(size) for i, (_, size, _) in enumerate(transfers)}
    over: dict[int, Fraction] = {}
    now = Fraction(0)
    while left:
        active = [i for i in left if transfers[i][0] <= now]
        rates = dict(zip(active, max_min([transfers[i][2] for i in active], exact), strict=True))
        ends = [now + left[i] / rates[i] for i in active]
        coming = [Fraction(transfers[i][0]) for i in left if transfers[i][0] > now]
        then = min(ends + coming)
        for i in active:
            left[i] -= rates[i] * (then - now)
            if not left[i]:
                over[i] = then
                del left[i]
        now = then
    return [over[i] for i in range(len(transfers))]


@settings(max_examples=150)
@given(TRANSFERS, CAPACITY)
def test_finish_times_are_exact(transfers: list[tuple[int, int, list[str]]], capacity: dict[str, int]) -> None:
    found = run(transfers, capacity)
    assert found == pytest.approx([float(end) for end in oracle(transfers, capacity)], rel=1e-9)
    assert found == run(transfers, capacity), "the same again, bit by bit"


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 60)), min_size=1, max_size=9))
def test_a_wire_never_rests_while_somebody_has_bytes(jobs: list[tuple[int, int]]) -> None:
    """One wire: the last byte of all is sent when a single queue would have sent it, whoever shares with whom."""
    free = 0.0
    for begins, size in sorted(jobs):
        free = max(free, begins) + size / 4
    assert max(run([(at, size, ["A"]) for at, size in jobs], {"A": 4})) == pytest.approx(free)


def test_two_equal_flows_share_and_the_one_left_speeds_up() -> None:
    """10 bytes/s: both have 5 until the short one is done at 2 s; the long one has 10 left and needs 1 s more."""
    assert run([(0, 10, ["A"]), (0, 20, ["A"])], {"A": 10}) == [2.0, 3.0]


def test_who_shares_no_wire_does_not_notice() -> None:
    sharing = Sharing({"A": 1.0, "B": 1.0})
    first, second = Flow(["A"], 3), Flow(["B"], 5)
    assert sharing.begin(first, 0.0) == [first]
    assert sharing.begin(second, 1.0) == [second]
    assert (first.end, second.end) == (3.0, 6.0)
    assert sharing.settle(3.0) == []
    assert list(sharing.flows.values()) == [second]

"""Routers against brute force, on healthy and on failing pools."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import Router
from airi_sim.policies.routers import MANY, Jsq, PowerOfTwo, PrefixAffinity, Random, RoundRobin, least, spread
from tests.policies.fakes import Columns, job

ROUTERS: dict[str, Callable[[], Router]] = {
    "round_robin": RoundRobin,
    "random": lambda: Random(seed=3),
    "jsq": Jsq,
    "p2c": lambda: PowerOfTwo(seed=3),
    "prefix_affinity": PrefixAffinity,
}
REPLICAS = st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=2 * MANY)


@pytest.mark.parametrize("name", ROUTERS)
@given(replicas=REPLICAS, prefixes=st.lists(st.lists(st.integers(0, 5), max_size=4), min_size=1, max_size=8))
def test_no_router_picks_a_replica_that_is_down(name: str, replicas: Any, prefixes: list[list[int]]) -> None:
    router = ROUTERS[name]()
    view = Columns([load for load, _ in replicas], [int(up) for _, up in replicas])
    before = {column: values[:] for column, values in view.columns.items()}
    for id, prefix in enumerate(prefixes):
        pick = router.route(job(id, prefix=tuple(prefix)), view, 0.0)
        assert type(pick) is int
        assert 0 <= pick < view.n
        assert replicas[pick][1] or not any(up for _, up in replicas)
    assert view.columns == before


@given(replicas=REPLICAS)
def test_least_is_the_first_of_the_least_loaded_that_are_up(replicas: Any) -> None:
    view = Columns([load for load, _ in replicas], [int(up) for _, up in replicas])
    candidates = [(load, i) for i, (load, up) in enumerate(replicas) if up]
    candidates = candidates or [(load, i) for i, (load, _) in enumerate(replicas)]
    assert least(view.columns["outstanding"], view.columns["up"]) == min(candidates)[1]
    assert Jsq().route(job(), view, 0.0) == min(candidates)[1]


@given(replicas=REPLICAS)
def test_spread_looks_at_those_that_are_up(replicas: Any) -> None:
    view = Columns([load for load, _ in replicas], [int(up) for _, up in replicas])
    alive = [load for load, up in replicas if up] or [0]
    assert spread(view.columns["outstanding"], view.columns["up"]) == (min(alive), max(alive))


def test_round_robin_takes_turns_and_skips_who_is_down() -> None:
    router, view = RoundRobin(), Columns([9, 0, 0], [1, 0, 1])
    assert [router.route(job(), view, 0.0) for _ in range(4)] == [0, 2, 0, 2]
    view.columns["up"][1] = 1
    assert [router.route(job(), view, 0.0) for _ in range(4)] == [0, 1, 2, 0]


@pytest.mark.parametrize("make", [lambda seed: Random(seed), lambda seed: PowerOfTwo(seed)], ids=["random", "p2c"])
def test_draws_follow_the_seed(make: Callable[[int], Router]) -> None:
    view = Columns([1] * 16)

    def picks(seed: int) -> list[int]:
        router = make(seed)
        return [router.route(job(id), view, 0.0) for id in range(50)]

    assert picks(1) == picks(1) != picks(2)


def test_random_is_uniform_over_those_that_are_up() -> None:
    router, view = Random(seed=5), Columns([0] * 4, [1, 0, 1, 1])
    picks = Counter(router.route(job(), view, 0.0) for _ in range(6000))
    assert set(picks) == {0, 2, 3}
    assert all(abs(n - 2000) < 5 * 37 for n in picks.values())  # five standard deviations of Binomial(6000, 1/3)


@pytest.mark.parametrize(("d", "expected"), [(1, 1 / 4), (2, 1 / 16), (3, 1 / 64)])
def test_the_worst_replica_is_chosen_only_if_all_draws_hit_it(d: int, expected: float) -> None:
    router, view, n = PowerOfTwo(seed=5, d=d), Columns([0, 1, 2, 3]), 6000
    worst = sum(router.route(job(), view, 0.0) == 3 for _ in range(n))
    assert abs(worst - n * expected) < 5 * (n * expected * (1 - expected)) ** 0.5


def test_idle_replicas_of_any_index_are_used_by_p2c() -> None:
    router, view = PowerOfTwo(seed=5), Columns([0] * 8)
    picks = Counter(router.route(job(), view, 0.0) for _ in range(4000))
    assert all(abs(picks[i] - 500) < 5 * 21 for i in range(8))


def test_prefix_affinity_returns_to_the_replica_that_saw_the_prefix() -> None:
    router, view = PrefixAffinity(), Columns([0] * 4)
    first = [router.route(job(id, prefix=(10 * id, 10 * id + 1)), view, 0.0) for id in range(4)]
    assert sorted(first) == [0, 1, 2, 3]  # unknown prefixes go where least is held
    again = [router.route(job(id, prefix=(10 * id, 10 * id + 1, 99 + id)), view, 0.0) for id in range(4)]
    assert again == first


def test_a_match_at_the_threshold_is_not_enough() -> None:
    router, view = PrefixAffinity(threshold=0.5), Columns([0, 0])
    assert router.route(job(1, prefix=(1, 2)), view, 0.0) == 0
    assert router.route(job(2, prefix=(1, 3)), view, 0.0) == 1
    assert router.route(job(3, prefix=(1, 2, 4)), view, 0.0) == 0


def test_of_several_holders_the_least_loaded_is_taken() -> None:
    router, view = PrefixAffinity(balance_abs=0), Columns([0, 9])
    assert router.route(job(1, prefix=(1, 2)), view, 0.0) == 0
    view.columns["outstanding"][0] = 99
    assert router.route(job(2, prefix=(1, 2)), view, 0.0) == 1  # unbalanced: the shortest queue, which now holds it too
    router.balance_abs = 1000
    assert router.route(job(3, prefix=(1, 2)), view, 0.0) == 1
    view.columns["outstanding"][0] = 0
    assert router.route(job(4, prefix=(1, 2)), view, 0.0) == 0


@pytest.mark.parametrize(("loads", "balanced"), [([33, 0], False), ([32, 0], True), ([400, 366], True)])
def test_both_differences_must_be_exceeded_before_load_wins(loads: list[int], balanced: bool) -> None:
    router, view = PrefixAffinity(balance_abs=32, balance_rel=1.1), Columns([0, 0])
    assert router.route(job(1, prefix=(1,)), view, 0.0) == 0
    view = Columns(loads)
    assert router.route(job(2, prefix=(1,)), view, 0.0) == (0 if balanced else 1)


def test_a_replica_that_is_down_does_not_look_idle() -> None:
    router, view = PrefixAffinity(balance_abs=32), Columns([0, 0, 0])
    assert router.route(job(1, prefix=(1,)), view, 0.0) == 0
    assert router.route(job(2, prefix=(1,)), Columns([60, 40, 0], [1, 1, 0]), 0.0) == 0


@given(
    capacity=st.integers(1, 12), prefixes=st.lists(st.lists(st.integers(0, 20), max_size=6, unique=True), max_size=30)
)
def test_belief_is_bounded_and_its_sums_agree(capacity: int, prefixes: list[list[int]]) -> None:
    router, view = PrefixAffinity(capacity=capacity), Columns([0] * 3)
    for id, prefix in enumerate(prefixes):
        router.route(job(id, prefix=tuple(prefix)), view, 0.0)
        assert len(router._holders) <= capacity
    held = [sum(mask >> i & 1 for mask in router._holders.values()) for i in range(3)]
    assert held == list(router._held or [0, 0, 0])


def test_the_tail_of_a_prompt_is_forgotten_before_its_head() -> None:
    router, view = PrefixAffinity(capacity=2), Columns([0, 0])
    router.route(job(1, prefix=(1, 2, 3)), view, 0.0)
    assert list(router._holders) == [2, 1]


@pytest.mark.parametrize(
    "make",
    [
        lambda: PowerOfTwo(seed=1, d=0),
        lambda: PrefixAffinity(threshold=1.5),
        lambda: PrefixAffinity(balance_abs=-1),
        lambda: PrefixAffinity(balance_rel=0.5),
        lambda: PrefixAffinity(capacity=0),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(make: Callable[[], Any]) -> None:
    with pytest.raises(BadInput, match=r"^[^\n]*\.$"):
        make()

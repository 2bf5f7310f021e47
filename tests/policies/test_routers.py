"""Routers against brute force, on healthy and on failing pools."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import Router
from airi_sim.policies.routers import (
    MANY,
    ConsistentHash,
    HeteroCost,
    Jiq,
    Jsq,
    KvCost,
    LeastKv,
    LeastWork,
    PowerOfTwo,
    PrefixAffinity,
    Random,
    RoundRobin,
    Scored,
    SessionSticky,
    TokenJsq,
    VllmDp,
    Weighted,
    least,
    spread,
)
from tests.policies.fakes import Columns, job

ROUTERS: dict[str, Callable[[], Router]] = {
    "round_robin": RoundRobin,
    "random": lambda: Random(seed=3),
    "jsq": Jsq,
    "p2c": lambda: PowerOfTwo(seed=3),
    "prefix_affinity": PrefixAffinity,
    "weighted": Weighted,
    "jiq": lambda: Jiq(seed=3),
    "token_jsq": TokenJsq,
    "least_kv": LeastKv,
    "vllm_dp": VllmDp,
    "least_work": LeastWork,
    "kv_cost": lambda: KvCost(seed=3),
    "kv_cost_drawn": lambda: KvCost(seed=3, temperature=2.0),
    "scored": Scored,
    "consistent_hash": ConsistentHash,
    "session_sticky": SessionSticky,
    "hetero_cost": HeteroCost,
}
BY_NUMBERS = ("jsq", "jiq", "token_jsq", "least_kv", "vllm_dp", "least_work", "kv_cost", "scored", "hetero_cost")
"""Those that order replicas by what they see of them."""
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


@pytest.mark.parametrize("name", BY_NUMBERS)
def test_ties_go_to_the_lowest_index_that_is_up(name: str) -> None:
    view = Columns([2] * 5, [0, 1, 1, 1, 1], waiting=[1] * 5, running=[1] * 5, kv_total_blocks=[9] * 5)
    if name == "jiq":
        view.columns["outstanding"][2:] = array("q", [0, 0, 0])
    assert ROUTERS[name]().route(job(tokens=64), view, 0.0) == (2 if name == "jiq" else 1)


def test_weights_are_kept_in_every_stretch_and_evenly_spread() -> None:
    router, view = Weighted([5.0, 1.0, 1.0]), Columns([0] * 3)
    picks = [router.route(job(), view, 0.0) for _ in range(14)]
    assert picks == [0, 0, 1, 0, 2, 0, 0] * 2  # as nginx documents it


def test_weights_must_be_as_many_as_replicas() -> None:
    with pytest.raises(BadInput, match="2 weights for 3 replicas"):
        Weighted([1.0, 2.0]).route(job(), Columns([0] * 3), 0.0)


def test_an_idle_replica_is_taken_and_with_none_a_random_one() -> None:
    router = Jiq(seed=5)
    assert router.route(job(), Columns([3, 1, 0, 0]), 0.0) == 2
    assert router.route(job(), Columns([3, 1, 0, 0], sent=[0, 0, 1, 0]), 0.0) == 3
    picks = Counter(router.route(job(), Columns([3, 1, 2], [1, 0, 1]), 0.0) for _ in range(4000))
    assert set(picks) == {0, 2} and abs(picks[0] - 2000) < 5 * 32


def test_tokens_that_wait_count_before_jobs() -> None:
    view = Columns([1, 9, 3], queued_tokens=[500, 20, 20])
    assert TokenJsq().route(job(), view, 0.0) == 2


def test_the_share_of_memory_counts_not_the_blocks() -> None:
    view = Columns([0, 0], kv_used_blocks=[40, 50], kv_total_blocks=[50, 100])
    assert LeastKv().route(job(), view, 0.0) == 1


def test_waiting_counts_four_times_and_what_was_sent_counts_as_waiting() -> None:
    view = Columns([0, 0], waiting=[1, 0], running=[0, 5])
    assert VllmDp().route(job(), view, 0.0) == 0  # 4 against 5
    view = Columns([0, 0], waiting=[1, 0], running=[0, 5], sent=[1, 0])
    assert VllmDp().route(job(), view, 0.0) == 1


def test_least_work_remembers_what_it_sent_until_it_is_over() -> None:
    router, view = LeastWork(output=2.0, expected=100), Columns([0, 0])
    long, short, other = job(1, 500), job(2, 10), job(3, 10)
    assert [router.route(one, view, 0.0) for one in (long, short, other)] == [0, 1, 1]
    assert router._stores == [700, 420]
    router.over(other, 0, 1.0)
    router.over(job(9), 50, 1.0)  # was never here
    router.over(short, 300, 2.0)
    assert router._stores == [700, 0]
    assert router.route(job(4, 10, budget=30), view, 3.0) == 1
    assert router._stores == [700, 10 + 2 * 30]  # at most its budget
    assert router.route(job(5, 10), view, 3.0) == 1
    assert router._stores == [700, 70 + 10 + 2 * 200]  # the mean of 100 and 300


def test_a_job_that_is_routed_again_counts_once() -> None:
    router, view = LeastWork(), Columns([0, 0])
    lost = job(1)
    assert router.route(lost, view, 0.0) == 0
    view.columns["up"][0] = 0
    assert router.route(lost, view, 1.0) == 1
    assert router._stores[0] == 0


def test_the_worked_example_of_dynamo() -> None:
    """Prefill and decode blocks (8, 10), (5, 5), (2, 9): 18, 10 and 11."""
    view = Columns([0] * 3, matched=[32, 80, 128], kv_used_blocks=[10, 5, 9])
    asking = job(tokens=160)
    assert KvCost(seed=1).costs(asking, view, 0.0) == [18.0, 10.0, 11.0]
    assert KvCost(seed=1).route(asking, view, 0.0) == 1
    assert KvCost(seed=1, prefill_weight=3.0).route(asking, view, 0.0) == 2  # 34, 20, 15
    view.columns["queued_tokens"][1] = 32  # two blocks wait there
    assert KvCost(seed=1).costs(asking, view, 0.0) == [18.0, 12.0, 11.0]


def test_with_a_temperature_chances_fall_with_the_cost() -> None:
    router, view = KvCost(seed=2, temperature=1.0), Columns([0] * 2, kv_used_blocks=[10, 11])
    picks = Counter(router.route(job(tokens=16), view, 0.0) for _ in range(6000))
    expected = 6000 / (1 + 2.718281828**-1)
    assert abs(picks[0] - expected) < 5 * (expected * (1 - expected / 6000)) ** 0.5


def test_scores_are_weighted_and_the_greatest_sum_wins() -> None:
    view = Columns(
        [0] * 3, matched=[0, 50, 100], waiting=[0, 2, 4], kv_used_blocks=[0, 5, 10], kv_total_blocks=[10] * 3
    )
    asking = job(tokens=100)
    assert Scored().scores(asking, view, 0.0) == [2.0, 2.0, 2.0]
    assert Scored({"prefix": 3.0, "queue": 1.0, "kv": 1.0}).route(asking, view, 0.0) == 2
    assert Scored({"prefix": 1.0, "queue": 1.0, "kv": 1.0}).route(asking, view, 0.0) == 0
    assert Scored({"active": 1.0}).scores(asking, Columns([4, 4]), 0.0) == [1.0, 1.0]


def test_a_bounded_ring_never_holds_more_than_its_share() -> None:
    """1,000 jobs on 10 replicas with epsilon 0.25: at most 125; without a bound some have more."""
    most = {}
    for epsilon in (0.25, None):
        router, view = ConsistentHash(epsilon=epsilon, points=20), Columns([0] * 10)
        for id in range(1000):
            asking = job(id)
            asking.session = f"s{id}"
            pick = router.route(asking, view, 0.0)
            view.columns["outstanding"][pick] += 1
        most[epsilon] = max(view.columns["outstanding"])
    assert most[0.25] <= 125 < most[None]


def test_few_sessions_move_when_a_replica_goes() -> None:
    router, view = ConsistentHash(epsilon=None), Columns([0] * 10)

    def home(session: int) -> int:
        asking = job()
        asking.session = f"s{session}"
        return router.route(asking, view, 0.0)

    before = [home(i) for i in range(500)]
    view.columns["up"][3] = 0
    after = [home(i) for i in range(500)]
    assert all(a == b for a, b in zip(before, after, strict=True) if b != 3 and a != 3)
    assert 3 in before and 3 not in after


def test_a_ring_by_prefix_keeps_conversations_together() -> None:
    router, view = ConsistentHash(key="prefix"), Columns([0] * 8)
    assert len({router.route(job(id, prefix=(7, id)), view, 0.0) for id in range(20)}) == 1
    assert len({router.route(job(id), view, 0.0) for id in range(20)}) > 1


def test_a_session_stays_until_its_home_is_far_busier_down_or_forgotten() -> None:
    router, view = SessionSticky(gap=2, ttl_s=10.0), Columns([1, 0])

    def home(now: float) -> int:
        asking = job()
        asking.session = "s"
        return router.route(asking, view, now)

    assert home(0.0) == 1
    view.columns["outstanding"][:] = array("q", [0, 2])
    assert home(1.0) == 1
    view.columns["outstanding"][1] = 3
    assert home(2.0) == 0
    view.columns["outstanding"][0] = 5
    view.columns["up"][0] = 0
    assert home(3.0) == 1
    view.columns["up"][0] = 1
    view.columns["outstanding"][:] = array("q", [2, 3])
    assert home(13.0) == 1
    assert home(23.5) == 0


def test_the_cheapest_replica_that_is_in_time() -> None:
    cheap = {"usd_per_hour": 1.0, "prompt_tokens_per_s": 2000.0, "pass_s": 0.04}
    fast = {"usd_per_hour": 8.0, "prompt_tokens_per_s": 40_000.0, "pass_s": 0.008}
    router, view = HeteroCost([fast, cheap], ttft_s=1.0, tpot_s=0.05), Columns([0, 0])
    assert router.route(job(tokens=500, budget=10), view, 0.0) == 1
    assert router.route(job(tokens=5000, budget=10), view, 0.0) == 0  # 2.5 s on the cheap one
    assert router.route(job(tokens=100_000), view, 0.0) == 0  # late on both: sooner on the fast one
    busy = Columns([0, 0], queued_tokens=[0, 4000])
    assert router.route(job(tokens=500, budget=10), busy, 0.0) == 0
    assert router.route(job(tokens=4000, budget=10), Columns([0, 0], matched=[0, 3000]), 0.0) == 1


def test_profiles_must_be_as_many_as_replicas() -> None:
    with pytest.raises(BadInput, match="1 profiles for 2 replicas"):
        HeteroCost([{}]).route(job(), Columns([0, 0]), 0.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: PowerOfTwo(seed=1, d=0),
        lambda: PrefixAffinity(threshold=1.5),
        lambda: PrefixAffinity(balance_abs=-1),
        lambda: PrefixAffinity(balance_rel=0.5),
        lambda: PrefixAffinity(capacity=0),
        lambda: Weighted(weights=[1.0, 0.0]),
        lambda: Weighted(weights=[]),
        lambda: LeastWork(output=-1.0),
        lambda: LeastWork(expected=0),
        lambda: LeastWork(predictor=object()),  # type: ignore[arg-type]
        lambda: KvCost(seed=1, temperature=-1.0),
        lambda: KvCost(seed=1, prefill_weight=-1.0),
        lambda: Scored(weights={"quueue": 1.0}),
        lambda: ConsistentHash(epsilon=0.0),
        lambda: ConsistentHash(points=0),
        lambda: SessionSticky(gap=-1),
        lambda: SessionSticky(ttl_s=0.0),
        lambda: HeteroCost(ttft_s=0.0),
        lambda: HeteroCost(profiles=[{"usd": 1.0}]),
        lambda: HeteroCost(profiles=[{"prompt_tokens_per_s": 0.0}]),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(make: Callable[[], Any]) -> None:
    with pytest.raises(BadInput, match=r"^[^\n]*[.?]$"):
        make()

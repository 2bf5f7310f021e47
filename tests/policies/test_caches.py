"""Cache orders against plain models of them, and the tree of prefixes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airi_sim.core.errors import BadInput, PolicyError
from airi_sim.policies.caches import Gdsf, Lfu, Lru, Radix
from airi_sim.runtime.prefix import PrefixCache

CACHES: dict[str, Callable[[], Any]] = {
    "lru": Lru,
    "radix": Radix,
    "lfu": Lfu,
    "lfu_in_cache": lambda: Lfu(keep=False),
    "gdsf": Gdsf,
    "gdsf_growing": lambda: Gdsf(growth=0.5),
}
PROMPTS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), min_size=1, max_size=40)
"""Paths from the root of a tree in which every unit has three children."""


def path(steps: Sequence[int]) -> tuple[str, ...]:
    """Units named by the way to them, so equal units have equal content before them."""
    return tuple("".join(map(str, steps[: i + 1])) for i in range(len(steps)))


def serve(cache: PrefixCache, prompt: Sequence[Any], room: int) -> tuple[int, list[Any]]:
    """One prompt after the other, as an idle replica does; returns what was found, and what went."""
    hit = cache.match(prompt, len(prompt))
    cache.lock(prompt[:hit])
    over = len(cache.references) + len(prompt) - hit - room
    gone = cache.evict(over) if over > 0 else []
    cache.release([*prompt[:hit], *cache.insert(prompt, hit, len(prompt))])
    return hit, gone


@pytest.mark.parametrize("name", CACHES)
@given(prompts=PROMPTS, room=st.integers(5, 12))
def test_no_unit_outlives_its_parent(name: str, prompts: list[list[int]], room: int) -> None:
    cache = PrefixCache(1, CACHES[name]())
    for steps in prompts:
        serve(cache, path(steps), room)
        resident = set(cache.references)
        assert all(len(unit) == 1 or unit[:-1] in resident for unit in resident)
        assert len(resident) <= room


@pytest.mark.parametrize("name", ["lru", "radix"])
@given(prompts=PROMPTS, room=st.integers(5, 12))
def test_lru_and_the_radix_tree_are_the_built_in_order(name: str, prompts: list[list[int]], room: int) -> None:
    one, other = PrefixCache(1, CACHES[name]()), PrefixCache(1)
    for steps in prompts:
        assert serve(one, path(steps), room) == serve(other, path(steps), room)


@pytest.mark.parametrize("keep", [True, False])
@given(prompts=PROMPTS, room=st.integers(5, 12))
def test_lfu_is_a_table_of_counts(keep: bool, prompts: list[list[int]], room: int) -> None:
    """Scanned: the least count goes, of equals the one that was used longest ago, the deepest first."""
    cache = PrefixCache(1, Lfu(keep))
    counts: Counter[str] = Counter()
    last: dict[str, int] = {}
    for clock, steps in enumerate(prompts):
        prompt = path(steps)
        idle = [unit for unit in last if unit not in prompt[: cache.match(prompt, len(prompt))]]
        _, gone = serve(cache, prompt, room)
        assert gone == sorted(idle, key=lambda u: (counts[u], last[u], -len(u)))[: len(gone)]
        for unit in gone:
            del last[unit]
            if not keep:
                del counts[unit]
        counts.update(prompt)
        last.update(dict.fromkeys(prompt, clock))


def test_gdsf_forgets_what_was_popular_long_ago_and_lfu_does_not() -> None:
    star = ("star",)
    for policy, remembers in ((Lfu(keep=False), True), (Gdsf(), False)):
        cache = PrefixCache(1, policy)
        for _ in range(5):
            serve(cache, star, 3)
        for i in range(40):
            serve(cache, (f"new{i}",), 3)
        assert (cache.match(star, 1) == 1) is remembers


def test_dearer_units_stay_longer() -> None:
    cache = PrefixCache(1, Gdsf(growth=10.0))
    serve(cache, path([0, 0, 0]), 4)
    serve(cache, path([1]), 4)
    assert serve(cache, path([2]), 4)[1] == ["1"]  # younger than the tail of the first prompt, but cheap to have again


def test_a_head_that_somebody_else_computed_stays_with_its_tail() -> None:
    """Two jobs compute the same head at once: the cache keeps that of the first; the second refers to its tail."""
    for policy, lost in ((Lru(), "a"), (Radix(), "b")):
        cache = PrefixCache(1, policy)
        first = cache.insert(("a",), 0, 1)
        second = cache.insert(("a", "b"), 0, 2)
        assert (first, second) == (["a"], ["b"])
        cache.release(first)
        cache.release(second)
        assert cache.evict(1) == [lost]


def test_if_all_leaves_are_in_use_the_oldest_goes_all_the_same() -> None:
    cache = PrefixCache(1, Radix())
    first, _ = cache.insert(("a",), 0, 1), cache.insert(("a", "b"), 0, 2)
    cache.release(first)
    assert cache.evict(1) == ["a"]


@given(prompts=PROMPTS)
def test_a_heap_of_leaves_follows_what_is_resident(prompts: list[list[int]]) -> None:
    cache = PrefixCache(1, policy := Lfu())
    for steps in prompts * 10:
        serve(cache, path(steps), 8)
    assert len(policy._tree._leaves) <= 2 * 8 + 65


class Names:
    """Victims as told."""

    def __init__(self, *units: str) -> None:
        self.units = units

    def victims(self, idle: Any, n: int) -> Sequence[str]:
        return self.units


@pytest.mark.parametrize("units", [("a", "a"), ("a",), ("a", "c"), ("a", "busy")])
def test_victims_that_cannot_be_are_named(units: tuple[str, ...]) -> None:
    cache = PrefixCache(1, Names(*units))
    cache.release(cache.insert(("a", "b"), 0, 2))
    cache.insert(("busy",), 0, 1)
    with pytest.raises(PolicyError, match="Names chose"):
        cache.evict(2)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(BadInput, match="growth"):
        Gdsf(growth=-1.0)

"""What each batcher promises, on a real server; that all of them equal the oracle is tests/laws/test_oracle.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airi_sim.core.errors import BadInput
from airi_sim.core.types import FOREVER, Item, Request
from airi_sim.policies.batchers import (
    Aimd,
    ChunkedPrefill,
    Continuous,
    DecodeFirst,
    GreedyAll,
    PastFuture,
    PrefillCadence,
    PrefillFirst,
    SizeTimeout,
    SloChunk,
    Static,
)
from airi_sim.policies.batchers.memory import peak
from airi_sim.runtime.hooks import claims
from tests.laws.worlds import Line, Ran, Setup, workload

STEADY = Line(base=1.0, token=0.0, context=0.0, pair=0.0)
"""A pass takes a second, whatever is in it."""


class Pass(NamedTuple):
    """What one pass was made of."""

    start: float
    end: float
    decodes: int
    prompt_tokens: int


def passes(ran: Ran) -> list[Pass]:
    return [Pass(row[2], row[3], row[5], row[6]) for row in ran.log.plans]


def item(id: int, arrival: float, tokens: int = 16, output: int = 3, budget: int = 0) -> Item:
    return Item(Request(id, arrival, tokens, budget), output)


def crowd(n: int = 40, budgets: bool = False, output: int = 60) -> list[Item]:
    """A burst of requests of many lengths; with `budgets` users ask for exactly what they will get."""
    items = workload(11, n, 50.0, 200, output)
    for one in items:
        one.request.budget = one.output_tokens if budgets else 0
    return items


def slowly(setup: Setup) -> list[Pass]:
    """Pass by pass."""
    return passes(setup.run(fast=False))


def test_static_and_greedy_batches_differ_where_a_pass_cannot_hold_all() -> None:
    items = [item(i, 0.0, tokens=40) for i in range(6)]
    static = slowly(Setup(items, batcher=Static, limit=80, cost=STEADY))
    greedy = slowly(Setup(items, batcher=GreedyAll, limit=80, cost=STEADY))
    assert [p.prompt_tokens for p in static[:5]] == [40, 0, 0, 80, 0]  # the first came alone, at once
    assert [p.prompt_tokens for p in greedy[:7]] == [40, 0, 0, 80, 80, 40, 0]
    assert greedy[6].decodes == 5


def test_greedy_all_takes_those_who_wait_at_the_beginning_and_no_later_ones() -> None:
    items = [item(0, 0.0), item(1, 0.5), item(2, 0.6), item(3, 3.5), item(4, 3.6)]
    ran = slowly(Setup(items, batcher=GreedyAll, cost=STEADY))
    assert [p.prompt_tokens for p in ran] == [16, 0, 0, 32, 0, 0, 32, 0, 0]
    capped = slowly(Setup(items, batcher=lambda: GreedyAll(cap=1), cost=STEADY))
    assert [p.prompt_tokens for p in capped if p.prompt_tokens] == [16] * 5


@pytest.mark.parametrize("fast", [True, False])
def test_size_timeout_goes_when_enough_wait_or_the_head_has_waited_long_enough(fast: bool) -> None:
    def starts(*arrivals: float, **more: Any) -> list[tuple[float, int]]:
        setup = Setup(
            [item(i, at, output=1) for i, at in enumerate(arrivals)],
            batcher=lambda: SizeTimeout(size=4, timeout_s=2.0, **more), cost=STEADY,
        )  # fmt: skip
        return [(p.start, p.prompt_tokens // 16) for p in passes(setup.run(fast))]

    assert starts(0.0, 0.25, 0.5, 0.75) == [(0.75, 4)]
    assert starts(0.0, 0.25, 0.5) == [(2.0, 3)]
    assert starts(0.0, 0.25, 0.5, 4.0) == [(2.0, 3), (6.0, 1)]
    assert starts(0.0, 0.25, 0.5, 0.75, 0.8, 0.9) == [(0.75, 4), (2.8, 2)]
    assert starts(0.0, 0.25, 0.5, preferred=[2]) == [(0.25, 2), (2.5, 1)]


def test_aimd_grows_by_one_and_shrinks_by_a_tenth() -> None:
    """A batch of b takes 1 + b seconds: with 12.5 s allowed, 11 are in time and 12 are late."""
    line = Line(base=0.0, token=1 / 16, context=0.0, pair=0.0)
    items = [item(0, 0.0, output=1)] + [item(i, 0.5, output=1) for i in range(1, 200)]
    ran = slowly(Setup(items, batcher=lambda: Aimd(slo_s=11.5), seats=64, limit=4096, cost=line))
    sizes = [p.prompt_tokens // 16 for p in ran]
    assert sizes[:16] == [1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 10, 11, 12]


def test_decode_first_lets_nobody_in_while_more_than_low_decode() -> None:
    class Spy(DecodeFirst):
        def form(self, draft: Any, queue: Any, now: float) -> None:
            super().form(draft, queue, now)
            if draft.sliced:
                decoding.append(draft.decoding)

    for low in (0, 3):
        decoding: list[int] = []
        ran = slowly(Setup(crowd(), batcher=lambda low=low: Spy(low), seats=12))
        assert all(not (p.decodes and p.prompt_tokens) for p in ran)
        assert max(decoding) == low
        assert max(p.decodes for p in ran) >= 8


@pytest.mark.parametrize("n", [1, 4])
def test_cadence_has_so_many_passes_of_decodes_between_two_of_prompts(n: int) -> None:
    ran = slowly(Setup(crowd(), batcher=lambda: PrefillCadence(n), seats=30))
    kinds = "".join("p" if p.prompt_tokens else "d" for p in ran)
    between = [len(run) for run in kinds.strip("d").split("p")[1:-1]]
    alone = [run for run in between if run < n]
    assert min(run for run in between if run) == n
    assert len(alone) == kinds.count("pp")  # at once only where nobody decoded


def test_prefill_first_and_chunked_differ_in_whether_prompts_and_decodes_share_a_pass() -> None:
    mixed = slowly(Setup(crowd(), batcher=ChunkedPrefill))
    apart = slowly(Setup(crowd(), batcher=PrefillFirst))
    assert any(p.decodes and p.prompt_tokens for p in mixed)
    assert not any(p.decodes and p.prompt_tokens for p in apart)


COEFFICIENTS = {"pass_s": 0.005, "sequence_s": 1.113e-4, "block_s": 16 * 1.3e-6, "token_s": 1.2e-4, "pair_s": 2e-8}


def test_slo_chunk_keeps_the_time_between_tokens_where_chunked_prefill_does_not() -> None:
    """The policy knows the coefficients of the world, up to what a chunk reads of its own prompt."""
    setup = Setup(crowd(80), batcher=lambda: SloChunk(tbt_s=0.03, least=8, **COEFFICIENTS), seats=64)
    with_decodes = [p.end - p.start for p in slowly(setup) if p.decodes and p.prompt_tokens]
    assert max(with_decodes) <= 0.03 + 300 * 1.3e-6
    assert sum(seconds > 0.027 for seconds in with_decodes) > len(with_decodes) / 3  # and uses what it may
    greedy = Setup(crowd(80), batcher=ChunkedPrefill, seats=64)
    assert max(p.end - p.start for p in slowly(greedy) if p.decodes and p.prompt_tokens) > 0.05


@given(depth=st.integers(0, 200_000), slack=st.floats(0.0, 0.2))
def test_allowed_is_the_largest_chunk_that_fits(depth: int, slack: float) -> None:
    policy = SloChunk()

    def cost(n: int) -> float:
        return n * (policy.token_s + policy.pair_s * (depth + n / 2))

    n = policy.allowed(depth, slack)
    assert cost(n) <= slack + 1e-9
    assert cost(n + 1) > slack - 1e-9
    assert policy.allowed(depth + 1000, slack) <= n


SHORT = {"blocks": 60, "seats": 40}


def test_reserved_memory_is_never_taken_back() -> None:
    """Orca never preempts; the unified loop on the same requests does."""
    assert Setup(crowd(), batcher=ChunkedPrefill, **SHORT).run().preemptions > 0
    for budgets in (True, False):
        assert Setup(crowd(budgets=budgets), batcher=Continuous, **SHORT).run().preemptions == 0
    with_budgets, without = (slowly(Setup(crowd(budgets=b), batcher=Continuous, **SHORT)) for b in (True, False))
    assert max(p.decodes for p in with_budgets) > 1
    assert max(p.decodes for p in without) == 1  # each job reserves all there is


def test_past_future_fits_more_in_than_reserving_and_never_preempts_if_budgets_are_true() -> None:
    items = crowd(budgets=True, output=150)
    reserved = Setup(items, batcher=Continuous, **SHORT).run()
    foreseen = Setup(items, batcher=lambda: PastFuture(margin=0.1, every=1), **SHORT).run()
    assert foreseen.preemptions == 0
    ends = [max(finish for _, finish in ran.times.values()) for ran in (reserved, foreseen)]
    decodes = [max(p.decodes for p in passes(ran)) for ran in (reserved, foreseen)]
    assert ends[1] < 0.9 * ends[0]
    assert decodes[1] > decodes[0]


@given(jobs=st.lists(st.tuples(st.integers(1, 30), st.integers(0, 50)), min_size=1, max_size=8))
def test_peak_is_what_counting_pass_by_pass_gives(jobs: list[tuple[int, int]]) -> None:
    def held(at: int) -> int:
        """Just after pass `at`, before those that end with it leave."""
        return sum(tokens + at for left, tokens in jobs if left >= at)

    assert peak(sorted(jobs, reverse=True)) == max(held(at) for at in range(1, 31))


class Foresees:
    """Predicts the same for all."""

    def predict(self, job: Any) -> float:
        return 1.0

    def learn(self, job: Any, tokens_out: int) -> None:
        raise AssertionError("nobody asks for that")


def test_past_future_asks_its_predictor() -> None:
    trusting = Setup(crowd(), batcher=lambda: PastFuture(predictor=Foresees(), every=1), **SHORT).run()
    assert trusting.preemptions > 0


@pytest.mark.parametrize("batcher", [Static, GreedyAll, lambda: SizeTimeout(size=4), Aimd, DecodeFirst])
def test_whoever_waits_gets_in_when_memory_is_short(batcher: Callable[[], Any]) -> None:
    ran = Setup(crowd(), batcher=batcher, **SHORT).run()
    assert len(ran.times) == 40 and all(finish < FOREVER for _, finish in ran.times.values())


@pytest.mark.parametrize(
    "make",
    [
        lambda: Static(size=0),
        lambda: GreedyAll(cap=0),
        lambda: SizeTimeout(size=0),
        lambda: SizeTimeout(timeout_s=-1.0),
        lambda: SizeTimeout(size=4, preferred=[5]),
        lambda: Aimd(slo_s=0.0),
        lambda: Aimd(backoff=1.0),
        lambda: DecodeFirst(low=-1),
        lambda: PrefillCadence(passes=0),
        lambda: PrefillFirst(watermark=1.0),
        lambda: SloChunk(tbt_s=0.0),
        lambda: SloChunk(pair_s=-1.0),
        lambda: Continuous(max_output=0),
        lambda: PastFuture(margin=1.0),
        lambda: PastFuture(every=0),
        lambda: PastFuture(predictor=object()),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(make: Callable[[], Any]) -> None:
    with pytest.raises(BadInput, match=r"^[^\n]*\.$"):
        make()


class Counting(ChunkedPrefill):
    """Chunked prefill that knows how often it was asked. It says nothing of its own `form`."""

    asked = 0

    def form(self, draft: Any, queue: Any, now: float) -> None:
        type(self).asked += 1
        super().form(draft, queue, now)


class Plain(Counting):
    """The same, and what is true of it is said."""

    plain = True
    asked = 0

    def form(self, draft: Any, queue: Any, now: float) -> None:
        super().form(draft, queue, now)


@pytest.mark.parametrize("fast", [True, False])
def test_a_batcher_is_not_asked_for_plain_decodes_only_if_its_own_class_says_so(fast: bool) -> None:
    Counting.asked = Plain.asked = 0
    silent = passes(Setup(crowd(), batcher=Counting).run(fast=fast))
    plain = passes(Setup(crowd(), batcher=Plain).run(fast=fast))
    assert plain == silent
    assert Counting.asked >= len(silent)
    assert (Plain.asked < Counting.asked) == fast


def test_a_claim_is_of_one_method_and_can_be_taken_back() -> None:
    class Off(ChunkedPrefill):
        plain = False

    class On(Counting):
        plain = True

    own = ChunkedPrefill()
    own.form = own.form  # type: ignore[method-assign]
    answers = [
        claims(batcher, "plain", "form") for batcher in (ChunkedPrefill(), On(), Counting(), Off(), own, object())
    ]
    assert answers == [True, True, False, False, False, False]

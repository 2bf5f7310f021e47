"""Where attention does not pad, a decode costs its own context: fitted, predicted and summed."""

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airi_sim.hardware.features import features, knots_to, names
from airi_sim.hardware.fit import is_ragged, profile_from_samples
from airi_sim.hardware.fitted import FittedCost
from tests.hardware.parts import make_plan

KNOTS = knots_to(64)
TRUE = dict.fromkeys(names(KNOTS), 1e-3) | {"padded_context": 3e-6, "sequences": 1e-4}
RAGGED = {"name": "each", "features": "ragged"}
PROFILE = {
    "format": "airi-profile/1", "device": "box", "model": "tiny", "precision": "fp32", "block_size": 16,
    "attention": RAGGED, "kinds": {"generate": {"knots": KNOTS, "coefficients": TRUE}},
}  # fmt: skip
CONTEXTS = st.lists(st.integers(1, 500), min_size=1, max_size=12)


def seconds(contexts: list[int]) -> float:
    row = features(make_plan(contexts), KNOTS, 16, ragged=True)
    return sum(c * x for c, x in zip(TRUE.values(), row, strict=True))


@given(contexts=CONTEXTS, passes=st.integers(1, 40))
def test_passes_add_up_as_contexts_grow(contexts: list[int], passes: int) -> None:
    """No break points: one affine answer holds for all passes."""
    first, step, holds = FittedCost(PROFILE).affine(make_plan(contexts))
    grown = accumulate(range(passes - 1), lambda now, _: [context + 1 for context in now], initial=contexts)
    assert holds >= passes
    assert sum(first + i * step for i in range(passes)) == pytest.approx(sum(map(seconds, grown)), rel=1e-9)


@given(contexts=CONTEXTS)
def test_only_the_sum_of_contexts_matters(contexts: list[int]) -> None:
    plan, other = make_plan(contexts), make_plan(contexts)
    other.longest = 9999
    assert FittedCost(PROFILE).affine(plan) == FittedCost(PROFILE).affine(other)


def test_a_fit_finds_the_price_of_context() -> None:
    """Few long contexts among short ones: padding would explain the times by the longest, and could not."""
    shapes = [[n] * count + [long] for n in (5, 90, 300) for count in (1, 4, 15) for long in (7, 150, 480)]
    samples = [(make_plan(contexts), seconds(contexts)) for contexts in shapes]
    found = {}
    for kind in ("ragged", "padded"):
        profile = profile_from_samples(
            {"generate": samples}, device="box", model="tiny", precision="fp32", attention=RAGGED | {"features": kind}
        )
        found[kind] = profile["kinds"]["generate"]
    assert found["ragged"]["residual_rel"] < 1e-6 < 1e-2 < found["padded"]["residual_rel"]
    assert found["ragged"]["coefficients"]["padded_context"] == pytest.approx(3e-6, rel=1e-3)


def test_a_profile_that_does_not_say_was_padded() -> None:
    assert is_ragged(PROFILE)
    assert not any(map(is_ragged, ({}, {"attention": {"features": "padded"}}, {"attention": "sdpa"})))

"""What the time of a pass of the torch backend depends on: the quantities the backend executes, not ideal ones.

Where its attention pads (profiles say so), decodes count as long as the longest context, rounded up to whole KV blocks,
else as long as they are. Time over new tokens is a broken line with knots at powers of two (matrix products are far
from linear below 32 tokens). A pass in which anything decodes gathers KV and attends once more in each layer, which one
of prompts alone does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from airi_sim.core.types import Plan

DECODES = "decodes"
AFTER_TOKENS = ("sequences", "padded_context", "prefill_attention", "prefill_context", "slices", DECODES)
"""Names of the features that follow those of the broken line. Profiles that were fitted before there was the last one
lack it: 0."""


def knots_to(most: int) -> list[int]:
    """1, 2, 4, ... and `most` itself, the largest number of new tokens in a pass."""
    knots = [1]
    while knots[-1] * 2 < most:
        knots.append(knots[-1] * 2)
    return knots if most <= 1 else [*knots, most]


def names(knots: Sequence[int]) -> list[str]:
    """Names of the features, in order: the constant is a pass of one token, `to_k` what growing to k tokens adds."""
    return ["constant", *(f"to_{knot}" for knot in knots[1:]), *AFTER_TOKENS]


def ramps(tokens: int, knots: Sequence[int]) -> list[float]:
    """The broken line as a sum of ramps: 1, then how far `tokens` got from each knot to the next (0 to 1).

    Ramps span the same lines as hats, but coefficients >= 0 make the time grow with the tokens, and the last ramp goes
    on beyond the last knot.
    """
    found = [1.0]
    for low, high in pairwise(knots):
        share = max(0.0, (tokens - low) / (high - low))
        found.append(share if high == knots[-1] else min(share, 1.0))
    return found


def features(plan: Plan, knots: Sequence[int], block_size: int, ragged: bool = False) -> list[float]:
    """One row of the design matrix: the first pass of `plan`, in the order of `names`. Where attention is `ragged`, the
    padded context is the context itself."""
    n = plan.sequences
    padded = plan.context + n if ragged else n * (plan.longest // block_size + 1) * block_size
    rest = (n, padded, plan.prefill_attention, plan.prefill_context, len(plan.slices), n > 0)
    return [*ramps(n + plan.prefill_tokens, knots), *map(float, rest)]

"""Passes by their numbers, for costs without a simulation."""

from __future__ import annotations

from airi_sim.core.types import Plan


def prompt_plan(sequences: int, tokens: int) -> Plan:
    """One pass over whole prompts of `tokens` tokens each."""
    return Plan(
        0, 0.0, [(None, tokens)] * sequences, [],
        prefill_tokens=sequences * tokens, prefill_attention=sequences * tokens * tokens,
        prefill_context=sequences * tokens,
    )  # fmt: skip


def decode_plan(sequences: int, context: int, shared: int = 0) -> Plan:
    """One decode pass of sequences with `context` tokens together, of which `shared` are read more than once."""
    return Plan(
        0, 0.0, [], [], sequences=sequences, context=context, longest=context // max(sequences, 1), shared=shared
    )


def mixed_plan(sequences: int, context: int, shared: int, fresh: int, past: int) -> Plan:
    """The same with a prompt of `fresh` tokens after `past` that are cached."""
    return Plan(
        0, 0.0, [(None, fresh)], [], sequences=sequences, context=context, longest=context // max(sequences, 1),
        shared=shared, prefill_tokens=fresh, prefill_attention=fresh * (2 * past + fresh), prefill_context=past + fresh,
    )  # fmt: skip

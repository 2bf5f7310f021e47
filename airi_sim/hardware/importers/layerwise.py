"""Layer-wise timings of one model on one device, as LLMServingSim writes them: three csv beside each other.

dense.csv        a layer by new tokens (projections, norms, activation, rotary embedding)
per_sequence.csv the output head and the sampler by sequences
attention.csv    attention of a whole pass: one chunk over its past beside decodes over their contexts
The tables name neither model nor device: both are the caller's to say.
"""

from __future__ import annotations

import numpy as np

from airi_sim.core.errors import BadInput
from airi_sim.hardware.importers.files import Table, where
from airi_sim.hardware.importers.ops import Floats, Ops, Wanted, ops
from airi_sim.models.spec import ModelSpec

SMALL = {"act_fn": 1, "layernorm": 2, "rotary_emb": 1}
"""Element-wise kernels, and how often a layer runs each."""


def dense(table: Table, wanted: Wanted) -> list[Ops]:
    """Projections as matrix products; the element-wise kernels of a layer together."""
    model = _needed(wanted)
    heads, narrow = model.heads * model.head_dim, model.kv_heads * model.head_dim
    weights = {
        "qkv_proj": (heads + 2 * narrow, model.hidden),
        "o_proj": (model.hidden, heads),
        "gate_up_proj": (2 * model.ffn, model.hidden),
        "down_proj": (model.hidden, model.ffn),
    }
    found = [_product(where(table, table["layer"] == name), "tokens", n, k) for name, (n, k) in weights.items()]
    parts = {name: where(table, table["layer"] == name) for name in SMALL}
    tokens = parts["act_fn"]["tokens"]
    spent = sum(times * _at(tokens, parts[name]) for name, times in SMALL.items())
    shape = {"tokens": tokens, "hidden": model.hidden, "ffn": model.ffn}
    return [*found, ops("small", shape, spent * 1e-6, "layer-wise dense")]


def per_sequence(table: Table, wanted: Wanted) -> list[Ops]:
    """The output head, a matrix product; the sampler belongs to the engine and is left out."""
    model = _needed(wanted)
    return [_product(where(table, table["layer"] == "lm_head"), "sequences", model.vocab, model.hidden)]


def attention(table: Table, wanted: Wanted) -> list[Ops]:
    """Pure decodes, pure chunks, and both in one kernel."""
    model = _needed(wanted)
    heads = {"heads": model.heads, "kv_heads": model.kv_heads, "head_dim": model.head_dim}
    chunk, sequences = table["prefill_chunk"] > 0, table["n_decode"] > 0
    decode, prefill, mixed = (where(table, f) for f in (~chunk & sequences, chunk & ~sequences, chunk & sequences))
    generation = {"sequences": decode["n_decode"], "context": decode["kv_decode"], **heads}
    context = {"sequences": 1, "tokens": prefill["prefill_chunk"], "past": prefill["kv_prefill"], **heads}
    both = {
        "tokens": mixed["prefill_chunk"], "past": mixed["kv_prefill"], "sequences": mixed["n_decode"],
        "context": mixed["kv_decode"], **heads,
    }  # fmt: skip
    source = "layer-wise attention"
    return [
        ops("decode", generation, decode["time_us"] * 1e-6, source),
        ops("prefill", context, prefill["time_us"] * 1e-6, source),
        ops("mixed", both, mixed["time_us"] * 1e-6, source),
    ]


def _needed(wanted: Wanted) -> ModelSpec:
    if wanted.model is None:
        raise BadInput("layer-wise timings do not say of which model they are: choose it with model=...")
    return wanted.model


def _product(rows: Table, tokens: str, n: int, k: int) -> Ops:
    return ops("gemm", {"m": rows[tokens], "n": n, "k": k}, rows["time_us"] * 1e-6, "layer-wise dense")


def _at(tokens: Floats, rows: Table) -> Floats:
    order = np.argsort(rows["tokens"])
    return np.interp(tokens, rows["tokens"][order], rows["time_us"][order])


READERS = (
    (("layer", "tokens", "time_us"), dense),
    (("layer", "sequences", "time_us"), per_sequence),
    (("prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us"), attention),
)
"""Columns that tell a table, and what reads it."""

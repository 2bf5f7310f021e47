"""Kernel timings of an H100 as BLIS publishes them: one csv, an `op` column."""

from __future__ import annotations

from airi_sim.hardware.importers.devices import rows_of
from airi_sim.hardware.importers.files import Table, where
from airi_sim.hardware.importers.ops import Floats, Ops, Wanted, ops

SOURCE = "BLIS kernels"


def kernels(table: Table, wanted: Wanted) -> list[Ops]:
    """Matrix products and attention, all in bf16: nothing for other precisions."""
    if not wanted.plain:
        return []
    rows = rows_of(table, "gpu", wanted.device)
    gemm, decode, prefill = (where(rows, rows["op"] == name) for name in ("gemm", "attn_decode", "attn_prefill"))
    generation = {"sequences": decode["batch_size"], "context": decode["kv_len"], **_heads(decode)}
    context = {"sequences": 1, "tokens": prefill["seq_len"], "past": 0, **_heads(prefill)}
    return [
        ops("gemm", {name: gemm[name] for name in ("m", "n", "k")}, gemm["latency_us"] * 1e-6, SOURCE),
        ops("decode", generation, decode["latency_us"] * 1e-6, SOURCE),
        ops("prefill", context, prefill["latency_us"] * 1e-6, SOURCE),
    ]


def _heads(rows: Table) -> dict[str, Floats]:
    shares = {"heads": rows["heads"] / rows["tp"], "kv_heads": rows["kv_heads"] / rows["tp"]}
    return shares | {"head_dim": rows["head_dim"]}


READERS = ((("gpu", "op", "mfu", "kv_len", "seq_len", "latency_us"), kernels),)
"""Columns that tell a table, and what reads it."""

"""Op tables of AIConfigurator, as parquet: matrix products, attention, experts, all-reduce; many devices a file."""

from __future__ import annotations

from typing import Any

import numpy as np

from airi_sim.hardware.importers.devices import rows_of
from airi_sim.hardware.importers.files import Column, Table, where
from airi_sim.hardware.importers.ops import Ops, Wanted, ops
from airi_sim.models.spec import width

DTYPES = {
    "bfloat16": "bf16", "half": "fp16", "fp8": "fp8", "fp8_block": "fp8", "int4_wo": "int4", "w4a16_mxfp4": "mxfp4",
}  # fmt: skip
"""Names of number formats in these tables, in our words."""


def gemm(table: Table, wanted: Wanted) -> list[Ops]:
    """m x k tokens with an n x k weight."""
    rows = _rows(table, wanted, "gemm_dtype")
    return [ops("gemm", {name: rows[name] for name in ("m", "n", "k")}, rows["latency_us"] * 1e-6, "AIC gemm")]


def attention(table: Table, wanted: Wanted) -> list[Ops]:
    """Full attention: one new token a sequence over `step` + 1 tokens, or `isl` tokens, causal, after `step`."""
    rows = _attention(table, wanted)
    one = rows["isl"] == 1
    new, old = where(rows, ~one), where(rows, one)
    decode = {"sequences": old["batch_size"], "context": old["step"] + 1, **_heads(old)}
    prefill = {"sequences": new["batch_size"], "tokens": new["isl"], "past": new["step"], **_heads(new)}
    return [
        ops("decode", decode, old["latency_us"] * 1e-6, "AIC generation attention"),
        ops("prefill", prefill, new["latency_us"] * 1e-6, "AIC context attention"),
    ]


def moe(table: Table, wanted: Wanted) -> list[Ops]:
    """Grouped products on one rank of a tensor-parallel group; balanced routing, no expert parallelism."""
    rows = _rows(table, wanted, "moe_dtype")
    rows = where(rows, (rows["moe_ep_size"] == 1) & (rows["distribution"] == "balanced"))
    columns = {
        "tokens": rows["num_tokens"], "hidden": rows["hidden_size"], "ffn": rows["inter_size"] / rows["moe_tp_size"],
        "experts": rows["num_experts"], "active": rows["topk"],
    }  # fmt: skip
    return [ops("moe", columns, rows["latency_us"] * 1e-6, "AIC moe")]


def all_reduce(table: Table, wanted: Wanted) -> list[Ops]:
    """The custom all-reduce of vLLM, captured in a graph. Sizes are elements."""
    rows = rows_of(table, "gpu", wanted.device)
    rows = where(rows, rows["kernel_source"] == "vLLM_custom_graph")
    return [_reduce(rows, "allreduce_dtype", "AIC custom all-reduce", "vllm")]


def nccl(table: Table, wanted: Wanted) -> list[Ops]:
    """The all-reduce of NCCL. Sizes are elements."""
    rows = rows_of(table, "gpu", wanted.device)
    rows = where(rows, (rows["op_name"] == "all_reduce") & (rows["nccl_dtype"] == "half"))
    return [_reduce(rows, "nccl_dtype", "AIC nccl", "nccl")]


def _reduce(rows: Table, dtype: str, source: str, variant: str) -> Ops:
    sizes = np.array([width(DTYPES[name]) for name in rows[dtype]]) * rows["message_size"]
    return ops("all_reduce", {"ranks": rows["num_gpus"], "bytes": sizes}, rows["latency_us"] * 1e-6, source, variant)


def _rows(table: Table, wanted: Wanted, dtype: str) -> Table:
    rows = rows_of(table, "gpu", wanted.device)
    return where(rows, _is(rows[dtype], wanted.precision))


def _attention(table: Table, wanted: Wanted) -> Table:
    rows = _rows(table, wanted, "attn_dtype")
    full = ~(np.nan_to_num(rows["window_size"].astype(float)) > 0)
    return where(rows, full & _is(rows["kv_cache_dtype"], wanted.precision))


def _is(names: Column, precision: str) -> Column:
    """Whether the format is `precision`; what is quantised keeps attention at bf16, of which fp16 is a twin."""
    twins = {"bf16", "fp16"} if precision in ("bf16", "fp16") else {precision}
    return np.array([DTYPES.get(str(name)) in twins for name in names], dtype=bool)


def _heads(rows: Table) -> dict[str, Any]:
    heads = {"heads": rows["num_heads"], "kv_heads": rows["num_key_value_heads"], "head_dim": rows["head_dim"]}
    return {name: column.astype(float) for name, column in heads.items()}


READERS = (
    (("gpu", "gemm_dtype", "m", "n", "k", "latency_us"), gemm),
    (("gpu", "attn_dtype", "isl", "step", "num_heads", "num_key_value_heads", "latency_us"), attention),
    (("gpu", "moe_dtype", "num_tokens", "inter_size", "topk", "latency_us"), moe),
    (("gpu", "allreduce_dtype", "message_size", "latency_us"), all_reduce),
    (("gpu", "op_name", "nccl_dtype", "message_size", "latency_us"), nccl),
)
"""Columns that tell a table, and what reads it."""

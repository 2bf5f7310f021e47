"""Op tables of Vidur: the layers of named models over tokens and tensor parallelism, and collectives of a fabric."""

from __future__ import annotations

import re

import numpy as np

from airi_sim.core.errors import BadInput
from airi_sim.hardware.importers.devices import rows_of
from airi_sim.hardware.importers.files import Table, where
from airi_sim.hardware.importers.ops import Floats, Ops, Wanted, ops
from airi_sim.models.spec import ModelSpec

SMALL = {"input_layernorm": 1, "post_attention_layernorm": 1, "mlp_act": 1, "attn_rope": 1, "add": 2}
"""Element-wise kernels, and how often a layer runs each."""


def mlp(table: Table, wanted: Wanted) -> list[Ops]:
    """The projections of `model` as matrix products and its element-wise kernels; fp16, no other precision."""
    if not wanted.plain:
        return []
    rows = rows_of(table, "gpu", wanted.device)
    model, names = wanted.model, sorted(set(rows["model"].tolist()))
    if not names:
        return []
    if model is None or not any(_same(name, model.name) for name in names):
        raise BadInput(
            f"this Vidur table holds the layers of {', '.join(map(str, names))}: choose one of them with model=..."
        )
    rows = where(rows, np.array([_same(name, model.name) for name in rows["model"]]))
    return [*_projections(rows, model), _small(rows, model)]


def network(table: Table, wanted: Wanted) -> list[Ops]:
    """All-reduce within one node, by NCCL. Sizes are bytes; fabrics are '<card>_dgx' or '<card>_pairwise_nvlink'."""
    card, *form = wanted.device.split("-")
    fabric = f"{card}_{'dgx' if 'sxm' in form else 'pairwise_nvlink'}"
    inside = (table["op"] == "all_reduce") & (table["num_workers"] == table["devices_per_node"])
    rows = where(table, inside & (table["fabric"] == fabric))
    shape = {"ranks": rows["num_workers"], "bytes": rows["size"]}
    return [ops("all_reduce", shape, rows["latency_us"] * 1e-6, "Vidur network", "nccl")]


def _projections(rows: Table, model: ModelSpec) -> list[Ops]:
    heads, narrow = model.heads * model.head_dim, model.kv_heads * model.head_dim
    weights = {
        "attn_pre_proj": (heads + 2 * narrow, model.hidden, "n"),
        "attn_post_proj": (model.hidden, heads, "k"),
        "mlp_up_proj": (2 * model.ffn, model.hidden, "n"),
        "mlp_down_proj": (model.hidden, model.ffn, "k"),
    }
    return [_projection(where(rows, rows["op"] == name), *weight) for name, weight in weights.items()]


def _projection(rows: Table, n: int, k: int, sharded: str) -> Ops:
    shape: dict[str, Floats | int] = {"m": rows["num_tokens"], "n": n, "k": k}
    shape[sharded] = (n if sharded == "n" else k) / rows["tp"]
    return ops("gemm", shape, rows["latency_us"] * 1e-6, "Vidur mlp")


def _small(rows: Table, model: ModelSpec) -> Ops:
    """All element-wise kernels of a layer together, where each was timed."""
    spent: dict[tuple[float, float], list[float]] = {}
    for name, times in SMALL.items():
        one = where(rows, rows["op"] == name)
        for tokens, tp, latency in zip(one["num_tokens"], one["tp"], one["latency_us"], strict=True):
            spent.setdefault((tokens, tp), []).append(times * latency)
    whole = {key: sum(parts) for key, parts in spent.items() if len(parts) == len(SMALL)}
    tokens, tp = np.array(list(whole), dtype=float).reshape(-1, 2).T
    shape = {"tokens": tokens, "hidden": model.hidden, "ffn": model.ffn / tp}
    return ops("small", shape, np.array(list(whole.values())) * 1e-6, "Vidur mlp")


def _same(name: str, model: str) -> bool:
    """'meta-llama/Meta-Llama-3-8B' and 'Llama-2-7b-hf' are llama-3-8b and llama-2-7b."""
    return _plain(name) == _plain(model)


def _plain(name: str) -> str:
    words = re.split(r"[^a-z0-9]+", name.lower().rpartition("/")[2])
    return "".join(word for word in words if word not in ("meta", "hf", "instruct"))


READERS = (
    (("gpu", "model", "tp", "op", "num_tokens", "latency_us"), mlp),
    (("fabric", "op", "num_workers", "devices_per_node", "size", "latency_us"), network),
)
"""Columns that tell a table, and what reads it."""

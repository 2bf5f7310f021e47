"""Kernel times on one accelerator, as blended rooflines with named coefficients.

Everything here is free of context lengths, so a cost model may tabulate it by (new tokens, sequences).
"""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

from airi_sim.core.errors import BadInput
from airi_sim.hardware.accelerator import Accelerator
from airi_sim.hardware.corrections import correction
from airi_sim.hardware.serving import Serving
from airi_sim.models.spec import Attention, LayerKind, Mlp, ModelSpec, kept_precision, width


def check_tensor_parallel(model: ModelSpec, tp: int) -> None:
    """BadInput unless the heads of `model` can be laid out over `tp` accelerators (KV heads may be replicated)."""
    if tp < 1 or model.heads % tp:
        raise BadInput(
            f"tp={tp} does not divide the {model.heads} attention heads of '{model.name}': "
            f"use one of {', '.join(map(str, layouts(model)))}."
        )
    if model.kv_heads % tp and tp % model.kv_heads:
        raise BadInput(
            f"tp={tp} fits neither into nor onto the {model.kv_heads} key-value heads of '{model.name}': "
            f"use one of {', '.join(map(str, layouts(model)))}."
        )


def layouts(model: ModelSpec, most: int = 64) -> list[int]:
    """Degrees of tensor parallelism `model` can be laid out on."""
    divides = [tp for tp in range(1, most + 1) if model.heads % tp == 0]
    return [tp for tp in divides if model.kv_heads % tp == 0 or tp % model.kv_heads == 0]


def kv_shards(model: ModelSpec, tp: int) -> int:
    """Over how many accelerators the KV of a token is split: latent KV is on all, others until one head is left."""
    return shards(model.attention, tp)


def shards(attention: Attention, tp: int) -> int:
    """Over how many accelerators the KV of one layer is split."""
    return 1 if attention.kv_rank else min(tp, max(1, attention.kv_heads))


class Reach(NamedTuple):
    """Attention over the context: `window` tokens back at most (0: all of it), seconds per token a decoding sequence
    looks back on, and per (query, context) pair of a prompt, in all layers of that reach."""

    window: int
    decode: float
    pair: float


class Kernels:
    """Times (seconds) of the parts of a pass on one of `tp` accelerators. Numbers of tokens and of sequences may be
    whole arrays of them (without `correct`); the times are then arrays, too."""

    def __init__(self, model: ModelSpec, device: Accelerator, serving: Serving, precision: str, tp: int) -> None:
        check_tensor_parallel(model, tp)
        self.model = model
        self.device = device
        self.serving = serving
        self.tp = tp
        self.precision = precision
        self.whole = kept_precision(precision)
        self.kept = width(self.whole)
        self.bandwidth = device.bandwidth * device.e_m
        self.attention_peak = device.peak(self.whole)
        self.reduce = device.all_reduce(serving.collective, tp) if tp > 1 else (0.0, 0.0)
        self.correct = correction(device.tables) if device.tables else None

    def product(self, m: int, n: float, k: float, module: str = "mlp") -> float:
        """Matrix product of m tokens with an n x k weight of `module` (which may be quantised)."""
        stored = self.model.stored(module, self.precision)
        rate, activation = self._arithmetic(stored)
        moved = (stored * n * k + activation * m * k + self.kept * m * n) / self.bandwidth
        time = self._blend(2.0 * m * n * k / (rate * self.device.e_c), moved) + self._fixed(k)
        return time * self.correct(m, n, k) if self.correct is not None else time

    def layers(self, new: int) -> float:
        """All layers for `new` tokens, without attention over the context."""
        return sum(kind.count * self._layer(kind, new) for kind in self.model.kinds)

    def head(self, sequences: int) -> float:
        """Output head and sampler for `sequences` rows; the head is never quantised."""
        return self.product(sequences, self.model.vocab / self.tp, self.model.hidden, "head") + self.serving.sampler_s

    def decode_launch(self) -> float:
        """Fixed time of decode attention in all layers."""
        return self.model.layers * self.device.decode_s

    def decode_sequence(self) -> float:
        """Decode attention of all layers per sequence, whatever its context: waves over the cores, recurrent states."""
        return sum(kind.count * self._sequence(kind.attention) for kind in self.model.kinds)

    def reaches(self) -> list[Reach]:
        """Attention over the context by how far it reaches, all of it (window 0) first."""
        found: dict[int, Reach] = {0: Reach(0, 0.0, 0.0)}
        for kind in self.model.kinds:
            window = kind.attention.window
            known = found.get(window) or Reach(window, 0.0, 0.0)
            decode = known.decode + kind.count * self._look_back(kind.attention)
            pair = known.pair + kind.count * self._pair(kind.attention)
            found[window] = Reach(window, decode, pair)
        return [found[window] for window in sorted(found)]

    def prefill_launch(self) -> float:
        """Fixed time of prefill attention in all layers."""
        return self.model.layers * self.device.prefill_s

    def prefill_context(self) -> float:
        """Reading the KV of all layers per context token of a chunk."""
        model = self.model
        return (
            model.kv_bytes_per_token(self.whole) / kv_shards(model, self.tp) / (self.device.bandwidth * self.device.e_m)
        )

    def _arithmetic(self, stored: float) -> tuple[float, float]:
        """Peak at which weights of so many bytes multiply, and bytes of an activation beside them: formats without a
        rate of their own are widened first."""
        if stored >= self.kept:
            return self.device.peak(self.whole), self.kept
        native = self.precision in self.device.peak_flops
        return self.device.peak(self.precision), width(self.precision) if native else self.kept

    def _blend(self, compute: float, memory: float) -> float:
        p = self.device.blend
        blended: float = (compute**p + memory**p) ** (1 / p)
        return blended

    def _fixed(self, k: float) -> float:
        return self.device.gemm_s + self.device.gemm_k_s * sqrt(k / 4096)

    def _layer(self, kind: LayerKind, m: int) -> float:
        mlp = self._experts(kind.mlp, m) if kind.mlp.experts else self._mlp(kind.mlp, kind.mlp.ffn, m, "mlp")
        return self._projections(kind.attention, m) + mlp + self._elementwise(kind.mlp, m) + 2 * self._all_reduce(m)

    def _projections(self, attention: Attention, m: int) -> float:
        """Into queries, keys and values, and out again."""
        a, tp, hidden = attention, self.tp, self.model.hidden
        if a.kv_rank:
            return self._latent(a, m)
        out = self.product(m, hidden, (a.heads * a.value_dim or sqrt(a.state)) / tp, "attention")
        if a.state:  # queries, keys, values and gates of linear attention in one
            return self.product(m, a.extra / hidden / tp, hidden, "attention") + out
        keys = 0 if a.borrows else a.kv_heads * (a.head_dim + (0 if a.keys_are_values else a.value_dim))
        wide = a.query_width * (2 if a.gate else 1) / tp + keys / shards(a, tp)
        return self.product(m, wide, hidden, "attention") + out

    def _latent(self, a: Attention, m: int) -> float:
        hidden, tp = self.model.hidden, self.tp
        query = a.heads * (a.nope_dim + a.rope_dim) / tp
        into = self.product(m, query, a.q_rank or hidden, "attention")
        down = self.product(m, a.q_rank + a.kv_rank + a.rope_dim, hidden, "attention")
        absorbed = self.product(m, a.heads * (a.nope_dim + a.value_dim) / tp, a.kv_rank, "attention")
        return into + down + absorbed + self.product(m, hidden, a.heads * a.value_dim / tp, "attention")

    def _mlp(self, mlp: Mlp, ffn: float, m: int, module: str) -> float:
        if not ffn:
            return 0.0
        each, hidden = ffn / self.tp, self.model.hidden
        return self.product(m, (mlp.matrices - 1) * each, hidden, module) + self.product(m, hidden, each, module)

    def _experts(self, mlp: Mlp, m: int) -> float:
        """Grouped products: work of the experts that tokens chose, weights of those that anybody chose."""
        weights = mlp.expert(self.model.hidden) / self.tp
        stored = self.model.stored("experts", self.precision)
        compute = 2.0 * m * mlp.active * weights / (self._arithmetic(stored)[0] * self.device.e_moe)
        moved = mlp.touched(m) * weights * stored / self.bandwidth
        router = self.product(m, mlp.experts, self.model.hidden, "router")
        return self.device.moe_s + compute + moved + router + self._mlp(mlp, mlp.shared_ffn, m, "shared")

    def _elementwise(self, mlp: Mlp, m: int) -> float:
        ffn = mlp.active * mlp.expert_ffn + mlp.shared_ffn if mlp.experts else mlp.ffn
        moved = (8 * self.model.hidden + mlp.matrices * ffn / self.tp) * self.kept * m
        return self.serving.layer_s + moved / (self.device.bandwidth * self.device.e_w)

    def _all_reduce(self, m: int) -> float:
        alpha, per_byte = self.reduce
        return alpha + m * self.model.hidden * self.kept * per_byte

    def _sequence(self, a: Attention) -> float:
        """One layer, per decoding sequence."""
        if a.state:  # read and written, always in 32 bits
            return 8.0 * a.state / self.tp / (self.device.bandwidth * self.device.e_kv)
        heads = 1 if a.kv_rank else max(1, a.kv_heads // self.tp)
        return self.device.wave_s * heads / self.device.cores

    def _look_back(self, a: Attention) -> float:
        """One layer, per token that a decoding sequence attends to."""
        read = a.kv_width * self.kept / shards(a, self.tp) / (self.device.bandwidth * self.device.e_kv)
        return max(read, self._pair(a)) if a.kv_rank else read

    def _pair(self, a: Attention) -> float:
        """One layer, per (query, context) pair of a prompt."""
        return a.pair_flops / self.tp / (self.attention_peak * self.device.e_pa)

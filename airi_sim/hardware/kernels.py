"""Kernel times on one accelerator, as blended rooflines with named coefficients.

Everything here is free of context lengths, so a cost model may tabulate it by (new tokens, sequences).
"""

from __future__ import annotations

from math import sqrt

from airi_sim.core.errors import BadInput
from airi_sim.hardware.accelerator import Accelerator
from airi_sim.hardware.serving import Serving
from airi_sim.models.spec import ModelSpec, kept_precision, width


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
    return 1 if model.kv_rank else min(tp, model.kv_heads)


class Kernels:
    """Times (seconds) of the parts of a pass on one of `tp` accelerators."""

    def __init__(self, model: ModelSpec, device: Accelerator, serving: Serving, precision: str, tp: int) -> None:
        check_tensor_parallel(model, tp)
        self.model = model
        self.device = device
        self.serving = serving
        self.tp = tp
        self.weight = width(precision)
        self.kept = width(kept_precision(precision))
        self.kv_bytes = model.kv_bytes_per_token(kept_precision(precision)) / kv_shards(model, tp)
        self.activation = self.kept if precision not in device.peak_flops else width(precision)
        self.flops = device.peak(precision) * device.e_c
        self.moe_flops = device.peak(precision) * device.e_moe
        self.head_flops = device.peak(kept_precision(precision)) * device.e_c
        self.bandwidth = device.bandwidth * device.e_m
        self.attention_peak = device.peak(kept_precision(precision))
        self.kv_heads = max(1, model.kv_heads // tp)
        self.reduce = device.all_reduce(serving.collective, tp) if tp > 1 else (0.0, 0.0)

    def product(self, m: int, n: float, k: float) -> float:
        """Matrix product of m tokens with an n x k weight."""
        moved = (self.weight * n * k + self.activation * m * k + self.kept * m * n) / self.bandwidth
        return self._blend(2.0 * m * n * k / self.flops, moved) + self._fixed(k)

    def layers(self, new: int) -> float:
        """All layers for `new` tokens, without attention over the context."""
        model = self.model
        common = self._attention_products(new) + self._elementwise(new) + 2 * self._all_reduce(new)
        if not model.experts:
            return model.layers * (common + self._mlp(new, model.ffn))
        sparse = (model.layers - model.dense_layers) * self._experts(new)
        return model.layers * common + model.dense_layers * self._mlp(new, model.ffn) + sparse

    def head(self, sequences: int) -> float:
        """Output head and sampler for `sequences` rows; the head is never quantised."""
        model = self.model
        n, k = model.vocab / self.tp, model.hidden
        moved = self.kept * (n * k + sequences * (n + k)) / self.bandwidth
        time = self._blend(2.0 * sequences * n * k / self.head_flops, moved) + self._fixed(k)
        return time + self.serving.sampler_s

    def decode_launch(self) -> float:
        """Fixed time of decode attention in all layers."""
        return self.model.layers * self.device.decode_s

    def decode_sequence(self) -> float:
        """Decode attention of all layers per sequence, whatever its context (waves over the cores)."""
        heads = 1 if self.model.kv_rank else self.kv_heads
        return self.model.layers * self.device.wave_s * heads / self.device.cores

    def decode_context(self) -> float:
        """Decode attention of all layers per context token."""
        model, device = self.model, self.device
        flops = model.layers * model.attention_flops / self.tp
        read = self.kv_bytes / (device.bandwidth * device.e_kv)
        return max(read, flops / (self.attention_peak * device.e_pa)) if model.kv_rank else read

    def prefill_launch(self) -> float:
        """Fixed time of prefill attention in all layers."""
        return self.model.layers * self.device.prefill_s

    def prefill_pair(self) -> float:
        """Prefill attention of all layers per (query token, context token) pair."""
        model = self.model
        return model.layers * model.attention_flops / self.tp / (self.attention_peak * self.device.e_pa)

    def prefill_context(self) -> float:
        """Reading the KV of all layers per context token of a chunk."""
        return self.kv_bytes / (self.device.bandwidth * self.device.e_m)

    def _blend(self, compute: float, memory: float) -> float:
        p = self.device.blend
        return float((compute**p + memory**p) ** (1 / p))

    def _fixed(self, k: float) -> float:
        return self.device.gemm_s + self.device.gemm_k_s * sqrt(k / 4096)

    def _attention_products(self, m: int) -> float:
        model, tp = self.model, self.tp
        if not model.kv_rank:
            narrow = self.kv_heads * model.head_dim
            wide = model.heads * model.head_dim / tp
            return self.product(m, wide + 2 * narrow, model.hidden) + self.product(m, model.hidden, wide)
        query = model.heads * (model.nope_dim + model.rope_dim) / tp
        down = model.q_rank + model.kv_rank + model.rope_dim
        into = self.product(m, query, model.q_rank or model.hidden) + self.product(m, down, model.hidden)
        absorbed = self.product(m, model.heads * (model.nope_dim + model.v_dim) / tp, model.kv_rank)
        return into + absorbed + self.product(m, model.hidden, model.heads * model.v_dim / tp)

    def _mlp(self, m: int, ffn: float) -> float:
        each = ffn / self.tp
        return self.product(m, 2 * each, self.model.hidden) + self.product(m, self.model.hidden, each)

    def _experts(self, m: int) -> float:
        """Grouped products: work of the experts that tokens chose, weights of those that anybody chose."""
        model = self.model
        each = model.expert_ffn / self.tp
        touched = model.experts * (1.0 - (1.0 - model.active_experts / model.experts) ** m)
        compute = 6.0 * m * model.active_experts * model.hidden * each / self.moe_flops
        moved = touched * 3 * model.hidden * each * self.weight / self.bandwidth
        shared = self._mlp(m, model.shared_ffn) if model.shared_ffn else 0.0
        return self.device.moe_s + compute + moved + self.product(m, model.experts, model.hidden) + shared

    def _elementwise(self, m: int) -> float:
        model = self.model
        ffn = model.active_experts * model.expert_ffn + model.shared_ffn if model.experts else model.ffn
        moved = (8 * model.hidden + 3 * ffn / self.tp) * self.kept * m
        return self.serving.layer_s + moved / (self.device.bandwidth * self.device.e_w)

    def _all_reduce(self, m: int) -> float:
        alpha, per_byte = self.reduce
        return alpha + m * self.model.hidden * self.kept * per_byte

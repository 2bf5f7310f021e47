"""Datasheet and measured efficiencies of one accelerator, in the node it usually sits in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airi_sim.core.errors import BadInput, unknown
from airi_sim.hardware.fitted import load_profile
from airi_sim.hardware.physics import PHYSICS, arguments

CONFIDENCE = ("high", "medium", "low", "measured")


@dataclass(frozen=True)
class Accelerator:
    """One accelerator. Rates are per second, times in seconds, sizes in bytes; one yaml a device in conf/accelerator.

    peak_flops       dense peak by precision
    cores            streaming multiprocessors or compute units
    e_c, e_m         reachable part of peak and of bandwidth in matrix products, p-norm blended with exponent `blend`
    gemm_s, gemm_k_s fixed time of a matrix product, and its part that grows with sqrt(inner dimension / 4096)
    e_kv             reachable part of bandwidth when decode attention reads KV; `decode_s` per kernel, `wave_s` per
                     wave of sequences x KV heads over the cores
    e_pa             reachable part of peak in prefill attention; `prefill_s` per kernel
    e_moe, moe_s     the same for grouped expert products
    e_w              reachable part of bandwidth in element-wise kernels
    mixed            factor on decode attention inside a pass that also prefills
    collectives      {implementation: {ranks: [alpha_s, bus_bytes_per_s]}} of all-reduce: they belong to the node and
                     the engine; `interconnect` (bytes/s, one direction) is used for what is not listed
    confidence       high, medium, low (datasheet or guess), measured (calibrated)
    profile          calibration profile (see airi_sim.hardware.fit); it replaces the physics when present
    residuals        spread of log(measured / predicted) of the fits, by kind of kernel (see airi_sim.hardware.opfit)
    tables           errors of single shapes, corrected where a table has them (see airi_sim.hardware.physics)
    """

    name: str
    peak_flops: Mapping[str, float]
    memory_bytes: float
    bandwidth: float
    cores: int = 100
    interconnect: float = 32e9
    host_bandwidth: float = 32e9
    e_c: float = 0.80
    e_m: float = 0.87
    gemm_s: float = 2.4e-6
    gemm_k_s: float = 1.7e-6
    blend: float = 2.3
    e_kv: float = 0.90
    decode_s: float = 12e-6
    wave_s: float = 0.9e-6
    e_pa: float = 0.57
    prefill_s: float = 11e-6
    e_moe: float = 0.33
    moe_s: float = 40e-6
    e_w: float = 0.7
    mixed: float = 2.0
    collectives: Mapping[str, Mapping[int, tuple[float, float]]] = field(default_factory=dict)
    tdp_w: float = 0.0
    idle_w: float = 0.0
    usd_per_hour: float = 0.0
    confidence: str = "low"
    source: str = ""
    profile: Mapping[str, Any] | None = None
    residuals: Mapping[str, float] = field(default_factory=dict)
    tables: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.confidence not in CONFIDENCE:
            raise unknown("confidence", self.confidence, CONFIDENCE)
        rates = ("memory_bytes", "bandwidth", "e_c", "e_m", "e_kv", "e_pa", "e_moe", "e_w", "mixed", "cores", "blend")
        for name in rates:
            if not getattr(self, name) > 0:
                raise BadInput(f"accelerator '{self.name}': {name} must be greater than 0, not {getattr(self, name)}.")
        if not self.peak_flops:
            raise BadInput(f"accelerator '{self.name}' has no peak_flops: give one, such as {{bf16: 1.0e+14}}.")

    def peak(self, precision: str) -> float:
        """Peak FLOP/s at which `precision` weights multiply; formats without their own rate are dequantised first."""
        known = self.peak_flops
        kept = {"fp16": "bf16", "bf16": "fp16"}.get(precision, "bf16")
        return known.get(precision) or known.get(kept) or known.get("bf16") or max(known.values())

    def all_reduce(self, implementation: str, ranks: int) -> tuple[float, float]:
        """(alpha seconds, seconds per byte) of one all-reduce over `ranks` accelerators of one node."""
        table = self.collectives.get(implementation) or self.collectives.get("nccl") or {}
        alpha, bus = table.get(ranks) or (10e-6, 0.6 * self.interconnect)
        return alpha, 2 * (ranks - 1) / ranks / bus


def calibrated(
    path: str | None = None, tdp_w: float = 0.0, idle_w: float = 0.0, usd_per_hour: float = 0.0
) -> Accelerator:
    """What `conf/accelerator/profile.yaml` instantiates: the device a calibration profile was measured on.

    A physics profile (of op timings) has its own data sheet. The other may name its peak_flops, memory_bytes and
    bandwidth; they matter for memory sizes only, because times come from the measurements.
    """
    if path is None:
        raise BadInput("accelerator=profile needs accelerator.path=PROFILE.json: make one with 'airi calibrate'.")
    profile = load_profile(path)
    if profile["format"] == PHYSICS:
        given = {"tdp_w": tdp_w, "idle_w": idle_w, "usd_per_hour": usd_per_hour}
        return Accelerator(**arguments(profile) | {name: value for name, value in given.items() if value})
    return Accelerator(
        name=str(profile["device"]),
        peak_flops=profile.get("peak_flops", {"fp32": 1e12}),
        memory_bytes=profile.get("memory_bytes", 16e9),
        bandwidth=profile.get("bandwidth", 30e9),
        confidence="measured",
        source=f"calibration profile {path}",
        profile=profile,
        tdp_w=tdp_w,
        idle_w=idle_w,
        usd_per_hour=usd_per_hour,
    )

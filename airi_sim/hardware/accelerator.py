"""Datasheet and measured efficiencies of one accelerator, where they are from, and the node it usually sits in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any

from airi_sim.core.errors import BadInput, unknown
from airi_sim.hardware.fabric import collective
from airi_sim.hardware.fitted import load_profile
from airi_sim.hardware.network import Node, node_around
from airi_sim.hardware.physics import PHYSICS, arguments
from airi_sim.models.precision import BYTES

CONFIDENCE = ("high", "medium", "low", "measured")

COEFFICIENTS: dict[str, tuple[str, ...]] = {
    "datasheet": ("peak_flops", "memory_bytes", "bandwidth", "cores", "interconnect", "host_bandwidth", "tdp_w"),
    "gemm": ("e_c", "e_m", "gemm_s", "gemm_k_s", "blend"),
    "decode": ("e_kv", "decode_s", "wave_s"),
    "prefill": ("e_pa", "prefill_s"),
    "mixed": ("mixed",),
    "moe": ("e_moe", "moe_s"),
    "small": ("e_w",),
    "all_reduce": ("collectives",),
    "price": ("usd_per_hour",),
    "idle": ("idle_w",),
}
"""Coefficients by what they were found from: one fit, one sheet, one guess. Kinds of kernels are those of op tables."""

GROUP_OF = {name: group for group, names in COEFFICIENTS.items() for name in names}


@dataclass(frozen=True)
class Coefficient:
    """One number of an accelerator (`value`; peak_flops is a mapping) with its source, and the shapes it was fitted on
    ({column of the op table: (least, most)}; empty: none)."""

    name: str
    value: Any
    source: str
    ranges: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Accelerator:
    """One accelerator. Rates are per second, times in seconds, sizes in bytes; one yaml a device in conf/accelerator.

    peak_flops       dense peak by precision
    cores            streaming multiprocessors or compute units
    interconnect, host_bandwidth   to the other accelerators and to the host, one direction
    e_c, e_m         reachable part of peak and of bandwidth in matrix products, p-norm blended with exponent `blend`
    gemm_s, gemm_k_s fixed time of a matrix product, and its part that grows with sqrt(inner dimension / 4096)
    e_kv             reachable part of bandwidth when decode attention reads KV; `decode_s` per kernel, `wave_s` per
                     wave of sequences x KV heads over the cores
    e_pa             reachable part of peak in prefill attention; `prefill_s` per kernel
    e_moe, moe_s     the same for grouped expert products
    e_w              reachable part of bandwidth in element-wise kernels
    mixed            factor on decode attention inside a pass that also prefills
    node             the node it usually sits in: links and measured collectives (conf/node; pool.node takes another)
    collectives      {engine: {ranks: [alpha_s, bus_bytes_per_s]}} of all-reduce, instead of those of the node
    confidence       high, medium, low (datasheet or guess), measured (calibrated)
    sources, ranges  where the coefficients are from, and the shapes they were fitted on, by group of COEFFICIENTS or
                     by name; `source` for the rest
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
    node: Node | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    ranges: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.confidence not in CONFIDENCE:
            raise unknown("confidence", self.confidence, CONFIDENCE)
        self._check_numbers()
        for name in (*self.sources, *self.ranges):
            if name not in COEFFICIENTS and name not in GROUP_OF:
                raise unknown(f"coefficient of accelerator '{self.name}'", name, (*COEFFICIENTS, *GROUP_OF))
        if self.node is not None and not isinstance(self.node, Node):
            raise BadInput(
                f"accelerator '{self.name}': node must be a node, not {self.node}; choose with pool.node=NAME."
            )

    def _check_numbers(self) -> None:
        if not self.peak_flops:
            raise BadInput(f"accelerator '{self.name}' has no peak_flops: give one, such as {{bf16: 1.0e+14}}.")
        for precision, peak in self.peak_flops.items():
            if precision not in BYTES:
                raise unknown(f"precision in peak_flops of accelerator '{self.name}'", str(precision), BYTES)
            self._check(f"peak_flops.{precision}", peak, peak > 0, "greater than 0")
        for name in POSITIVE:
            self._check(name, getattr(self, name), getattr(self, name) > 0, "greater than 0")
        for name in SHARES:
            self._check(
                name, getattr(self, name), getattr(self, name) <= 1, "at most 1 (a part of the data sheet's rate)"
            )
        for name in NOT_NEGATIVE:
            self._check(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")

    def _check(self, name: str, value: float, possible: bool, wanted: str) -> None:
        if not (possible and isfinite(value)):
            raise BadInput(f"accelerator '{self.name}': {name} must be {wanted}, not {value}.")

    def peak(self, precision: str) -> float:
        """Peak FLOP/s at which `precision` weights multiply.

        Weights of a format without a rate of its own are widened first and multiply as bf16 (fp16 and bf16 stand in for
        each other). BadInput for fp32 where nothing so wide has a rate.
        """
        known = self.peak_flops
        for name in STAND_INS.get(precision, (precision, "bf16", "fp16", "fp32")):
            if name in known:
                return known[name]
        raise BadInput(
            f"accelerator '{self.name}' has no peak_flops for {precision}: choose a precision among "
            f"{', '.join(sorted(known))}, or set accelerator.peak_flops.{precision}."
        )

    def all_reduce(self, implementation: str, ranks: int) -> tuple[float, float]:
        """(alpha seconds, seconds per byte) of one all-reduce over `ranks` accelerators, node after node."""
        found = collective(self.home, "all_reduce", implementation, ranks)
        return found.alpha_s, found.per_byte("all_reduce", ranks)

    @property
    def home(self) -> Node:
        """The node it sits in, with its own all-reduces if it has some."""
        node = node_around(self)
        own = {"all_reduce": self.collectives} if self.collectives else {}
        return replace(node, collectives={**node.collectives, **own})

    def notes(self, precision: str, implementation: str = "nccl", ranks: int = 1) -> tuple[str, ...]:
        """Sentences on what one should doubt when it runs weights of `precision` over so many ranks."""
        found = []
        if self.confidence in ("medium", "low"):
            found.append(f"accelerator '{self.name}' has coefficients of {self.confidence} confidence.")
        if precision in ARITHMETIC and precision not in self.peak_flops:
            found.append(
                f"accelerator '{self.name}' cannot multiply {precision}: weights are widened as they are read."
            )
        if precision in ("bf16", "fp16") and precision not in self.peak_flops:
            found.append(f"accelerator '{self.name}' has no {precision}: the rate of another format stands in.")
        doubt = collective(self.home, "all_reduce", implementation, ranks).doubt if ranks > 1 else ""
        return tuple([*found, doubt] if doubt else found)

    def coefficients(self) -> tuple[Coefficient, ...]:
        """Every number of it with its source and the shapes it was fitted on, for reports."""
        return tuple(self._coefficient(name, group) for name, group in GROUP_OF.items())

    def _coefficient(self, name: str, group: str) -> Coefficient:
        source = self.sources.get(name) or self.sources.get(group) or self.source
        ranges = self.ranges.get(name) or self.ranges.get(group) or {}
        if name == "collectives" and not self.collectives:
            return Coefficient(name, self.home.collectives, self.home.source, ranges)
        return Coefficient(name, getattr(self, name), source, ranges)


POSITIVE = (
    "memory_bytes", "bandwidth", "interconnect", "host_bandwidth", "cores", "e_c", "e_m", "e_kv", "e_pa", "e_moe",
    "e_w", "mixed", "blend",
)  # fmt: skip
SHARES = ("e_c", "e_m", "e_kv", "e_pa", "e_moe")
"""Parts of a peak or of a bandwidth. e_w is none: activations that stay in a cache move faster than memory does."""
NOT_NEGATIVE = ("gemm_s", "gemm_k_s", "decode_s", "wave_s", "prefill_s", "moe_s", "tdp_w", "idle_w", "usd_per_hour")
STAND_INS = {"fp32": ("fp32",), "bf16": ("bf16", "fp16", "fp32"), "fp16": ("fp16", "bf16", "fp32")}
ARITHMETIC = ("fp8", "int8", "nvfp4")
"""Formats that are narrow for the sake of arithmetic, where an accelerator has it; others only save memory."""


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

"""How numbers are stored: bytes of each format, and which modules of a quantised model keep their full width."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from airi_sim.core.errors import BadInput, unknown

BYTES: dict[str, float] = {
    "fp32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "nvfp4": 0.5625,
    "int4": 0.53,
    "mxfp4": 0.53125,
}
"""Bytes per weight, scales of the group-quantised formats included (int4: groups of 128)."""

NEVER_CONVERTED = frozenset(("embedding", "head", "router", "norm", "vision"))
"""Modules that serving engines keep at full width whatever the format of the others."""

METHODS = {
    "fp8": "fp8", "fbgemm_fp8": "fp8", "finegrained_fp8": "fp8", "mxfp4": "mxfp4", "awq": "int4", "gptq": "int4",
    "auto-round": "int4", "nvfp4": "nvfp4", "modelopt_fp4": "nvfp4", "modelopt": "", "compressed-tensors": "",
    "bitsandbytes": "",
}  # fmt: skip
"""Format of the weights by quant_method; "" where the rest of the quantization_config decides."""

_NAMES = {
    "attention": re.compile(r"attn|attention|[qkvo]_proj"),
    "shared": re.compile(r"shared_expert"),
    "experts": re.compile(r"(?<!shared_)experts"),
    "mlp": re.compile(r"mlp\.(gate_up|gate|up|down)_proj|feed_forward\.(gate|up|down)_proj"),
}


@dataclass(frozen=True)
class Quantisation:
    """A published quantisation: `precision` of the converted weights, the modules `kept` at full width, and the bytes
    per converted weight, scales included (`width`)."""

    precision: str
    kept: frozenset[str] = frozenset()
    width: float = 0.0


def width(precision: str) -> float:
    """Bytes per number of `precision`; BadInput names the known ones."""
    if precision not in BYTES:
        raise unknown("precision", precision, BYTES)
    return BYTES[precision]


def kept_precision(precision: str) -> str:
    """What stays at full width when weights are stored as `precision`: activations, KV, embeddings, the output head."""
    return precision if width(precision) >= 2 else "bf16"


def quantisation(config: Mapping[str, Any] | None, layers: int) -> Quantisation | None:
    """From the `quantization_config` of a config.json; BadInput names a method nobody here knows."""
    if not config:
        return None
    precision = _precision(config)
    ignored = [config.get(key) or () for key in ("modules_to_not_convert", "ignore", "exclude_modules")]
    kept = _kept([str(name) for names in ignored for name in names], layers)
    return Quantisation(precision, kept, _width(precision, config))


def _precision(config: Mapping[str, Any]) -> str:
    method = str(config.get("quant_method") or config.get("quant_algo") or "").lower()
    if method not in METHODS:
        raise BadInput(
            f"the model config is quantised by '{method}', which is none of {', '.join(sorted(METHODS))}: "
            "take quantization_config out of it and choose the nearest precision for the run."
        )
    weights = _weights(config)
    bits = int(weights.get("num_bits") or config.get("bits") or config.get("w_bit") or 0)
    if METHODS[method] == "int4" and bits == 8:
        return "int8"
    return METHODS[method] or _of_bits(config, weights, bits)


def _of_bits(config: Mapping[str, Any], weights: Mapping[str, Any], bits: int) -> str:
    """For methods that cover several formats."""
    algorithm = str(config.get("quant_algo") or config.get("format") or "").lower()
    if "nvfp4" in algorithm or (bits == 4 and weights.get("type") == "float"):
        return "mxfp4" if weights.get("group_size") == 32 else "nvfp4"
    if bits == 4 or config.get("load_in_4bit"):
        return "int4"
    return "int8" if weights.get("type") == "int" or config.get("load_in_8bit") else "fp8"


def _weights(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What compressed-tensors says of the weights of its first group."""
    groups = config.get("config_groups") or {}
    return next(iter(groups.values())).get("weights") or {} if groups else {}


def _width(precision: str, config: Mapping[str, Any]) -> float:
    """Bytes per weight with its share of the scales: two bytes a group of int4, and half a byte more if asymmetric."""
    group = _weights(config).get("group_size") or config.get("group_size") or 0
    if precision != "int4" or group <= 0:
        return width(precision)
    zeros = bool(config.get("zero_point")) or config.get("sym") is False
    return 0.5 + (2.0 + 0.5 * zeros) / group


def _kept(patterns: Iterable[str], layers: int) -> frozenset[str]:
    """Modules that the patterns name, in all layers or in at least half of them one by one."""
    named: dict[str, set[str]] = {}
    for pattern in patterns:
        layer = re.search(r"layers\.(\d+)\.", pattern)
        for module in (module for module, name in _NAMES.items() if name.search(pattern)):
            named.setdefault(module, set()).add(layer[1] if layer else "*")
    return frozenset(module for module, found in named.items() if "*" in found or 2 * len(found) >= layers)

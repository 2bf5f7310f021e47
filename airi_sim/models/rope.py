"""How the rotary positions of a config.json are stretched to reach further than those a model was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airi_sim.models.config import above_0, number


@dataclass(frozen=True)
class RopeScaling:
    """A `rope_type` other than the default one.

    factor     by how much positions are compressed
    low, high  llama3: wavelengths above original / low are compressed, those below original / high are left alone
    original   longest sequence of the training that came before
    """

    kind: str
    factor: float = 1.0
    low: float = 1.0
    high: float = 4.0
    original: int = 0


def rope(text: Mapping[str, Any]) -> Mapping[str, Any]:
    """`rope_scaling`, or `rope_parameters` of transformers 5, which may hold one entry per kind of layer."""
    nested = text.get("rope_parameters") or text.get("rope_scaling") or {}
    return nested.get("full_attention") or nested


def scaling(text: Mapping[str, Any]) -> RopeScaling | None:
    """Of a config.json; None where positions are as they were trained."""
    found = rope(text)
    kind = str(found.get("rope_type") or found.get("type") or "default")
    if kind in ("default", "mrope"):
        return None
    return RopeScaling(
        kind=kind,
        factor=above_0(found.get("factor") or 1.0, "factor"),
        low=above_0(found.get("low_freq_factor") or 1.0, "low_freq_factor"),
        high=above_0(found.get("high_freq_factor") or 4.0, "high_freq_factor"),
        original=number(found, "original_max_position_embeddings"),
    )

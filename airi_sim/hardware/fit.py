"""Measured (plan, seconds) to a calibration profile.

The noise of a pass is multiplicative, and a run adds up passes, so the fit must hit the conditional mean: weights
1/fitted^2, iterated. Weights 1/measured^2 (or medians) are biased low by the variance of the noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airi_sim.core.errors import BadInput
from airi_sim.core.types import Plan
from airi_sim.hardware.features import features, knots_to, names
from airi_sim.hardware.service import CACHED, SERVICE, many, units

FORMAT = "airi-profile/1"
SERVED = "generate"
PASSES = (SERVED, "draft")
"""Kinds of samples that are passes of a model: of the one that serves, and of the one that drafts for it."""
Samples = Sequence[tuple[Plan, float]]


def fit(
    samples: Samples, knots: Sequence[int] | None = None, block_size: int = 16, ragged: bool = False
) -> dict[str, float]:
    """Coefficients (seconds per unit of each feature, none negative) of a generate pass; BadInput on no samples."""
    knots = knots or knots_to(_most(samples))
    rows = [features(plan, knots, block_size, ragged) for plan, _ in samples]
    return dict(zip(names(knots), _mean_fit(rows, _seconds(samples)), strict=True))


def fit_service(samples: Samples, kind: str = "") -> dict[str, float]:
    """constant, per_token and per_item (seconds) of a kind of service; per_cached where a cache knew something."""
    return dict(zip((*SERVICE, CACHED), _mean_fit(_service_rows(samples, kind), _seconds(samples)), strict=False))


def _service_rows(samples: Samples, kind: str) -> list[list[float]]:
    columns = len(SERVICE) + any(plan.shared for plan, _ in samples)
    return [[float(unit) for unit in units(plan, many(kind))[:columns]] for plan, _ in samples]


def profile_from_samples(
    samples: Mapping[str, Samples], *, device: str, model: str, precision: str, block_size: int = 16, **extra: Any
) -> dict[str, Any]:
    """The profile (plain JSON values) of what was measured, by kind: generate and services; `extra` is kept."""
    head = {"format": FORMAT, "device": device, "model": model, "precision": precision, "block_size": block_size}
    ragged = is_ragged(extra)
    kinds = {kind: _section(kind, measured, block_size, ragged) for kind, measured in samples.items() if measured}
    if not kinds:
        raise BadInput("nothing was measured: a profile needs samples of at least one kind (generate, embed, search).")
    return head | extra | {"kinds": kinds}


def is_ragged(profile: Mapping[str, Any]) -> bool:
    """Whether attention did not pad decodes where a profile was measured; the key is `attention: {name, features}`."""
    attention = profile.get("attention")
    return isinstance(attention, Mapping) and attention.get("features") == "ragged"


def _section(kind: str, samples: Samples, block_size: int, ragged: bool) -> dict[str, Any]:
    if kind in PASSES:
        knots = knots_to(_most(samples))
        found = fit(samples, knots, block_size, ragged)
        rows = [features(plan, knots, block_size, ragged) for plan, _ in samples]
        section: dict[str, Any] = {"knots": knots, "coefficients": found}
    else:
        found = fit_service(samples, kind)
        rows = _service_rows(samples, kind)
        section = dict(found)
    return section | {"samples": len(samples), "ranges": _ranges(samples)} | _residuals(rows, found, samples)


def _mean_fit(rows: Sequence[Sequence[float]], seconds: Sequence[float], rounds: int = 30) -> list[float]:
    """Non-negative least squares whose weights are 1/fitted^2, iterated until the fit stays where it is."""
    import numpy as np
    from scipy.optimize import nnls

    matrix = np.asarray(rows, dtype=float)
    target = np.asarray(seconds, dtype=float)
    fitted = np.full(len(target), target.mean())
    found = np.zeros(matrix.shape[1])
    for _ in range(rounds):
        weighted = matrix / fitted[:, None]
        scale = np.linalg.norm(weighted, axis=0)
        scale[scale == 0] = 1.0
        found = nnls(weighted / scale, target / fitted, maxiter=100 * matrix.shape[1])[0] / scale
        before, fitted = fitted, np.maximum(matrix @ found, 1e-3 * target.min())
        if np.allclose(before, fitted, rtol=1e-6, atol=0):
            break
    return [float(value) for value in found]


def _seconds(samples: Samples) -> list[float]:
    seconds = [second for _, second in samples]
    if not seconds or not all(second > 0 for second in seconds):
        raise BadInput("a fit needs samples, and each must have taken more than 0 seconds: measure again.")
    return seconds


def _most(samples: Samples) -> int:
    return max((plan.sequences + plan.prefill_tokens for plan, _ in samples), default=1)


def _ranges(samples: Samples) -> dict[str, list[int]]:
    """Least and most of what was measured; a prediction beyond says so."""
    seen = {
        "tokens": [plan.sequences + plan.prefill_tokens for plan, _ in samples],
        "sequences": [plan.sequences for plan, _ in samples],
        "context": [plan.context for plan, _ in samples],
        "prefill_context": [plan.prefill_context for plan, _ in samples],
        "slices": [len(plan.slices) for plan, _ in samples],
    }
    return {name: [min(values), max(values)] for name, values in seen.items()}


def _residuals(rows: Sequence[Sequence[float]], found: Mapping[str, float], samples: Samples) -> dict[str, float]:
    """Relative root mean square residual, the relative error of the total, and by how much the second half of the
    samples, which are in the order in which they were taken, took longer than the first, both against the fit."""
    fitted = [sum(c * x for c, x in zip(found.values(), row, strict=True)) for row in rows]
    seconds = [second for _, second in samples]
    ratios = [second / max(value, 1e-12) - 1 for second, value in zip(seconds, fitted, strict=True)]
    rms = (sum(ratio * ratio for ratio in ratios) / len(ratios)) ** 0.5
    half = len(ratios) // 2
    early, late = (1 + sum(part) / max(1, len(part)) for part in (ratios[:half], ratios[half:]))
    return {"residual_rel": rms, "bias_rel": sum(fitted) / sum(seconds) - 1, "drift_rel": late / early - 1}

"""Physics profiles: the coefficients of an accelerator fitted to op timings, as a file.

`airi calibrate calibrate.ops=...` writes one and `accelerator=profile accelerator.path=...` reads it. Unlike the
profile of a measured backend (`fit.py`) it holds for any model: it keeps coefficients of kernels, not times of passes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airi_sim.hardware.accelerator import Accelerator
    from airi_sim.hardware.importers.ops import Ops
    from airi_sim.hardware.opfit import Fitted

PHYSICS = "airi-physics/1"

DATASHEET = (
    "name", "peak_flops", "memory_bytes", "bandwidth", "cores", "interconnect", "host_bandwidth", "tdp_w", "idle_w",
    "usd_per_hour",
)  # fmt: skip
"""What a profile takes over from the accelerator whose op timings it holds."""


def physics_profile(found: Sequence[Ops], device: Accelerator, precision: str, table: bool = False) -> dict[str, Any]:
    """The profile (plain JSON values) of op timings of `device`, whose data sheet must be right; its coefficients stand
    where the timings say nothing. With `table` the errors of every matrix product are kept too, and corrected where the
    table has neighbours. BadInput where nothing can be fitted."""
    from airi_sim.hardware.opfit import FAMILIES, coefficients_of, fit_all_reduce, fit_ops, with_fit

    fits = fit_ops(found, device, precision)
    fitted = with_fit(device, fits)
    reduces = {ops.variant: fit_all_reduce(ops) for ops in found if ops.kind == "all_reduce"}
    kinds = {fit.kind for fit in fits}
    timed = kinds | ({"all_reduce"} if any(reduces.values()) else set())
    return {
        "format": PHYSICS,
        "precision": precision,
        "datasheet": {name: _plain(getattr(device, name)) for name in DATASHEET},
        "coefficients": {name: value for name, value in coefficients_of(fitted).items() if hasattr(device, name)},
        "taken": {"from": device.name, "families": sorted(set(FAMILIES) - kinds), **_untouched(device, timed)},
        "families": {fit.kind: _family(fit) for fit in fits},
        "collectives": {name: {str(n): list(pair) for n, pair in pairs.items()} for name, pairs in reduces.items()},
        "tables": _tables(found, fitted, precision) if table else {},
    }


def arguments(profile: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the Accelerator that a profile describes."""
    families, taken = profile["families"], profile["taken"]
    ranges = {kind: one["ranges"] for kind, one in families.items()}
    residuals = {kind: one["sigma"] for kind, one in families.items()}
    fitted = {kind: f"fitted to {one['samples']} timings: {one['source']}" for kind, one in families.items()}
    collectives = {name: {int(n): tuple(pair) for n, pair in pairs.items()}
                   for name, pairs in profile["collectives"].items()}  # fmt: skip
    return {
        **profile["datasheet"],
        **profile["coefficients"],
        "collectives": collectives,
        "confidence": "measured",
        "source": f"data sheet and guesses of {taken['from']}",
        "sources": {**taken.get("sources", {}), **fitted},
        "ranges": {**taken.get("ranges", {}), **ranges},
        "residuals": {**taken.get("residuals", {}), **residuals},
        "tables": profile["tables"],
    }


def incomplete(profile: Mapping[str, Any]) -> str:
    """What is wrong with a physics profile, or nothing."""
    wanted = ("precision", "datasheet", "coefficients", "families", "collectives", "tables", "taken")
    missing = [key for key in wanted if key not in profile]
    if missing:
        return f"it lacks {', '.join(missing)}"
    lost = [key for key in wanted[1:] if not isinstance(profile[key], Mapping)]
    if lost:
        return f"its {lost[0]} is not an object"
    bad = [name for name, value in profile["coefficients"].items() if not isinstance(value, int | float) or value <= 0]
    short = [kind for kind, one in profile["families"].items() if not {"samples", "sigma", "ranges"} <= set(one)]
    if bad:
        return f"its coefficient {bad[0]} is not above 0"
    return f"its family {short[0]} lacks samples, sigma or ranges" if short else ""


def _untouched(device: Accelerator, timed: Collection[str]) -> dict[str, Any]:
    """Sources, ranges and spreads of what no timing said anything of: they hold as they did before the fit."""
    from airi_sim.hardware.accelerator import COEFFICIENTS
    from airi_sim.hardware.confidence import FAMILIES, sigma_of

    gone = {*timed, *(name for kind in timed for name in COEFFICIENTS[kind])}
    return {
        "sources": {name: text for name, text in device.sources.items() if name not in gone},
        "ranges": {
            name: {number: [float(end) for end in ends] for number, ends in one.items()}
            for name, one in device.ranges.items()
            if name not in gone
        },
        "residuals": {kind: sigma_of(device, kind) for kind in FAMILIES if kind not in timed},
    }


def _family(fit: Fitted) -> dict[str, Any]:
    return {
        "samples": fit.samples, "dropped": fit.dropped, "median": fit.median, "p90": fit.p90, "sigma": fit.sigma,
        "bias": fit.bias, "ranges": fit.ranges, "source": fit.source, "standard_errors": fit.share,
    }  # fmt: skip


def _plain(value: Any) -> Any:
    return {str(key): float(one) for key, one in value.items()} if isinstance(value, Mapping) else value


def _tables(found: Sequence[Ops], fitted: Accelerator, precision: str) -> dict[str, Any]:
    """log(measured / fitted) of every matrix product, by its shape."""
    import numpy as np

    from airi_sim.hardware.opfit import distinct, predicted

    ops = next((distinct(one) for one in found if one.kind == "gemm"), None)
    if ops is None:
        return {}
    errors = np.log(ops.seconds / predicted(ops, fitted, precision))
    shape = {name: [int(value) for value in ops[name]] for name in ("m", "n", "k")}
    return {"gemm": shape | {"log_ratio": [round(float(error), 5) for error in errors]}}

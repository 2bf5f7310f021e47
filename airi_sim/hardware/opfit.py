"""Op timings to the coefficients of an accelerator: the physics of `kernels.py` as arrays, fitted family by family.

Least squares on the error of the logarithm, soft-L1 (a table has outliers), with bounds. Micro-benchmarks loop on a
warm last-level cache, so decode attention over little KV looks faster than it is between other kernels: a cache term
takes that part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from airi_sim.core.errors import BadInput
from airi_sim.hardware.accelerator import Accelerator
from airi_sim.hardware.importers.ops import SHAPES, Floats, Ops
from airi_sim.models.spec import kept_precision, width

Values = Mapping[str, float]
Formula = Callable[[Ops, Values, "Sheet"], Floats]
MOST = 1500
"""Timings of a family that are fitted; the residuals are those of all."""
BOOST = 1.1
"""How far a timing may beat the peak of the data sheet: clocks do by a little."""
FEWEST = 8
"""Timings below which a family is not fitted."""


@dataclass(frozen=True)
class Sheet:
    """What the formulas need of the data sheet: FLOP/s, bytes/s, cores, bytes per weight, activation and kept number.

    peak is that of the weights' precision, kept_peak that of what is not quantised.
    """

    peak: float
    kept_peak: float
    bandwidth: float
    cores: int
    weight: float
    activation: float
    kept: float

    @classmethod
    def of(cls, device: Accelerator, precision: str) -> Sheet:
        """Of an accelerator that multiplies in `precision`."""
        kept = kept_precision(precision)
        activation = width(precision if precision in device.peak_flops else kept)
        peak, kept_peak = device.peak(precision), device.peak(kept)
        return cls(peak, kept_peak, device.bandwidth, device.cores, width(precision), activation, width(kept))


@dataclass(frozen=True)
class Family:
    """One kind of kernel: its coefficients with (least, most), its formula, and which timings are worth a fit.

    `nuisance` coefficients are fitted and thrown away: (start, least, most).
    """

    bounds: Mapping[str, tuple[float, float]]
    formula: Formula
    worth: Callable[[Ops], Any]
    nuisance: Mapping[str, tuple[float, float, float]]


@dataclass(frozen=True)
class Fitted:
    """Coefficients of one family, and how well they describe all of its timings.

    median, p90   of the absolute relative error
    sigma         spread of log(measured / formula): half of (84th - 16th percentile)
    bias          median of it
    dropped       timings left out because they beat the peak of the data sheet
    ranges        least and most of each number of the shape, over all timings
    share         relative standard error of each coefficient, from the curvature of the fit
    """

    kind: str
    values: dict[str, float]
    samples: int
    median: float
    p90: float
    sigma: float
    bias: float
    ranges: dict[str, list[float]]
    source: str
    dropped: int
    share: dict[str, float]


def gemm(ops: Ops, c: Values, sheet: Sheet) -> Floats:
    """Compute and traffic in a p-norm, a fixed time, and one that grows with the root of the inner dimension."""
    m, n, k = ops["m"], ops["n"], ops["k"]
    compute = 2.0 * m * n * k / (sheet.peak * c["e_c"])
    moved = (sheet.weight * n * k + sheet.activation * m * k + sheet.kept * m * n) / (sheet.bandwidth * c["e_m"])
    p = c["blend"]
    return np.asarray((compute**p + moved**p) ** (1 / p) + c["gemm_s"] + c["gemm_k_s"] * np.sqrt(k / 4096))


def decode(ops: Ops, c: Values, sheet: Sheet) -> Floats:
    """A launch, a part per sequence and KV head over the cores, and the KV read; less where the cache holds the KV."""
    n, kv_heads = ops["sequences"], ops["kv_heads"]
    held = 2.0 * kv_heads * ops["head_dim"] * sheet.kept * n * ops["context"]
    warm = 1.0 / (1.0 + (held / c["cache_bytes"]) ** 4) if "cache_bytes" in c else 0.0
    read = held / (sheet.bandwidth * c["e_kv"]) * (1.0 - warm * (1.0 - 1.0 / c.get("cache_speed", 1.0)))
    return np.asarray(c["decode_s"] + c["wave_s"] * n * kv_heads / sheet.cores + read)


def prefill(ops: Ops, c: Values, sheet: Sheet) -> Floats:
    """A launch, work per pair of tokens, and the KV read once."""
    n, tokens, past = ops["sequences"], ops["tokens"], ops["past"]
    pairs = n * (tokens * (tokens + 1) / 2 + tokens * past)
    work = 4.0 * ops["heads"] * ops["head_dim"] * pairs / (sheet.kept_peak * c["e_pa"])
    read = 2.0 * ops["kv_heads"] * ops["head_dim"] * sheet.kept * n * (tokens + past)
    return np.asarray(c["prefill_s"] + work + read / (sheet.bandwidth * c["e_m"]))


def mixed(ops: Ops, c: Values, sheet: Sheet) -> Floats:
    """One chunk as in `prefill`, and the decodes beside it times the mixed factor."""
    heads = {name: ops[name] for name in ("heads", "kv_heads", "head_dim")}
    chunk = Ops("prefill", {"sequences": np.ones(len(ops)), "tokens": ops["tokens"], "past": ops["past"], **heads},
                ops.seconds, "")  # fmt: skip
    return prefill(chunk, c, sheet) + c["mixed"] * decode(ops, c, sheet)


def moe(ops: Ops, c: Values, sheet: Sheet) -> Floats:
    """Work of the experts that tokens chose, weights of those that anybody chose."""
    tokens, experts, each = ops["tokens"], ops["experts"], ops["hidden"] * ops["ffn"]
    touched = experts * (1.0 - (1.0 - ops["active"] / experts) ** tokens)
    compute = 6.0 * tokens * ops["active"] * each / (sheet.peak * c["e_moe"])
    return np.asarray(c["moe_s"] + compute + touched * 3.0 * each * sheet.weight / (sheet.bandwidth * c["e_m"]))


def small(ops: Ops, c: Values, sheet: Sheet) -> Floats:
    """A fixed time, and the activations of norms, residuals, rotary embedding and gate, read and written."""
    moved = (8 * ops["hidden"] + 3 * ops["ffn"]) * sheet.kept * ops["tokens"]
    return np.asarray(c["layer_s"] + moved / (sheet.bandwidth * c["e_w"]))


FAMILIES: dict[str, Family] = {
    "gemm": Family(
        {"e_c": (0.2, 1.0), "e_m": (0.2, 1.0), "gemm_s": (1e-7, 5e-5), "gemm_k_s": (1e-8, 5e-5), "blend": (1.0, 6.0)},
        gemm, lambda ops: ops["n"] * ops["k"] >= 1 << 20, {},
    ),
    "decode": Family(
        {"e_kv": (0.1, 1.0), "decode_s": (1e-7, 1e-4), "wave_s": (1e-9, 1e-4)},
        decode, lambda ops: ops["context"] >= 64, {"cache_bytes": (3e7, 1e5, 4e8), "cache_speed": (1.5, 1.0, 8.0)},
    ),
    "prefill": Family(
        {"e_pa": (0.05, 1.0), "prefill_s": (1e-7, 1e-3)},
        prefill, lambda ops: ops["sequences"] * ops["tokens"] * ops["heads"] >= 8192, {},
    ),
    "mixed": Family({"mixed": (0.5, 8.0)}, mixed, lambda ops: ops["sequences"] * ops["context"] >= 20_000, {}),
    "moe": Family({"e_moe": (0.02, 1.0), "moe_s": (1e-6, 1e-2)}, moe, lambda ops: ops["ffn"] >= 128, {}),
    "small": Family({"e_w": (0.05, 4.0), "layer_s": (1e-7, 1e-2)}, small, lambda ops: ops["tokens"] >= 1, {}),
}  # fmt: skip
"""In the order in which they are fitted: later ones use what earlier ones found. What is not worth a fit: products
too small for a projection, decodes and chunks that are all launch, mixed passes that are nearly all prompt."""


def fit_ops(found: Sequence[Ops], device: Accelerator, precision: str) -> list[Fitted]:
    """Every family there are timings for; the data sheet is that of `device`, and coefficients that no timing says
    anything of stay as they are there. BadInput where nothing can be fitted."""
    sheet = Sheet.of(device, precision)
    known = coefficients_of(device)
    fits = []
    for kind, family in FAMILIES.items():
        ops = next((one for one in found if one.kind == kind), None)
        if ops is None:
            continue
        worth = ops.take(np.flatnonzero(family.worth(ops)))
        kept = distinct(worth.take(np.flatnonzero(possible(worth, sheet))))
        if len(kept) >= FEWEST:
            dropped = int(np.sum(~possible(worth, sheet)))
            fits.append(replace(fit_family(kind, kept, known, sheet), dropped=dropped, ranges=ops.ranges))
            known |= fits[-1].values
    if not fits and not any(one.kind == "all_reduce" for one in found):
        kinds = ", ".join(f"{len(one)} {one.kind}" for one in found)
        raise BadInput(f"nothing can be fitted to {kinds} timings: a family needs at least {FEWEST} of a model's size.")
    return fits


def possible(ops: Ops, sheet: Sheet) -> Any:
    """Which timings a device of this peak can have had."""
    if ops.kind == "gemm":
        return 2.0 * ops["m"] * ops["n"] * ops["k"] <= BOOST * ops.seconds * sheet.peak
    if ops.kind == "prefill":
        pairs = ops["sequences"] * (ops["tokens"] * (ops["tokens"] + 1) / 2 + ops["tokens"] * ops["past"])
        return 4.0 * ops["heads"] * ops["head_dim"] * pairs <= BOOST * ops.seconds * sheet.kept_peak
    return np.ones(len(ops), dtype=bool)


def possible_on(ops: Ops, device: Accelerator, precision: str = "bf16") -> Any:
    """The same by the accelerator."""
    return possible(ops, Sheet.of(device, precision))


def distinct(ops: Ops) -> Ops:
    """Every shape once, with the median of its timings."""
    shapes = np.column_stack([ops[name] for name in SHAPES[ops.kind]])
    _, first, which = np.unique(shapes, axis=0, return_index=True, return_inverse=True)
    order = np.lexsort((ops.seconds, which.ravel()))
    ends = np.cumsum(np.bincount(which.ravel())) if len(ops) else np.array([], dtype=int)
    starts = ends - np.bincount(which.ravel()) if len(ops) else ends
    middle = (ops.seconds[order[(starts + ends - 1) // 2]] + ops.seconds[order[(starts + ends) // 2]]) / 2
    once = ops.take(first)
    return replace(once, seconds=middle)


def coefficients_of(device: Accelerator) -> dict[str, float]:
    """The coefficients of all families as the accelerator has them; what is not its own starts at a guess."""
    names = [name for family in FAMILIES.values() for name in family.bounds]
    return {name: float(getattr(device, name, 5e-6)) for name in names}


def fit_family(kind: str, ops: Ops, known: Values, sheet: Sheet) -> Fitted:
    """One family, starting from what is known of its coefficients."""
    from scipy.optimize import least_squares

    family = FAMILIES[kind]
    names = [*family.bounds, *family.nuisance]
    bounds = [*family.bounds.values(), *[(low, high) for _, low, high in family.nuisance.values()]]
    starts = [known[name] for name in family.bounds] + [start for start, _, _ in family.nuisance.values()]
    low, high = np.log(bounds).T
    start = np.clip(np.log(np.maximum(starts, 1e-12)), low + 1e-6, high - 1e-6)
    some = sample(ops)

    def errors(logs: Floats) -> Floats:
        values = dict(known) | dict(zip(names, np.exp(logs), strict=True))
        return np.log(family.formula(some, values, sheet) / some.seconds)

    found = least_squares(errors, start, bounds=(low, high), loss="soft_l1", f_scale=0.1)
    values = dict(zip(names, np.exp(found.x).tolist(), strict=True))
    kept = {name: values[name] for name in family.bounds}
    return _described(kind, ops, dict(known) | values, kept, sheet, dict(zip(names, _errors(found), strict=True)))


def sample(ops: Ops, most: int = MOST) -> Ops:
    """Some of many timings, always the same ones."""
    if len(ops) <= most:
        return ops
    return ops.take(np.sort(np.random.default_rng(0).choice(len(ops), most, replace=False)))


def _errors(found: Any) -> list[float]:
    """Relative standard errors of coefficients that were fitted as logarithms."""
    spread = 2 * found.cost / max(1, len(found.fun) - len(found.x))
    covariance = np.linalg.pinv(found.jac.T @ found.jac) * spread
    return [float(value) for value in np.sqrt(np.maximum(np.diag(covariance), 0))]


def _described(kind: str, ops: Ops, values: Values, kept: dict[str, float], sheet: Sheet, share: Values) -> Fitted:
    logs = np.log(ops.seconds / FAMILIES[kind].formula(ops, values, sheet))
    apart = np.abs(np.expm1(-logs))
    low, high = np.percentile(logs, [16, 84])
    return Fitted(
        kind, kept, len(ops), float(np.median(apart)), float(np.percentile(apart, 90)), float(high - low) / 2,
        float(np.median(logs)), ops.ranges, ops.source, 0, {name: share[name] for name in kept},
    )  # fmt: skip


def fit_all_reduce(ops: Ops) -> dict[int, tuple[float, float]]:
    """{ranks: (alpha seconds, bus bytes/s)}: least squares on the relative error, both above 0."""
    from scipy.optimize import nnls

    found = {}
    for ranks in sorted({int(n) for n in ops["ranks"]}):
        mine = ops.take(np.flatnonzero(ops["ranks"] == ranks))
        rows = np.column_stack([np.ones(len(mine)), mine["bytes"] * 2 * (ranks - 1) / ranks]) / mine.seconds[:, None]
        scale = np.linalg.norm(rows, axis=0)
        alpha, per_byte = nnls(rows / scale, np.ones(len(mine)))[0] / scale
        if alpha > 0 and per_byte > 0:
            found[ranks] = (float(alpha), float(1 / per_byte))
    return found


def with_fit(device: Accelerator, fits: Sequence[Fitted]) -> Accelerator:
    """The accelerator with the coefficients that were fitted."""
    return with_values(device, {name: value for fit in fits for name, value in fit.values.items()})


def with_values(device: Accelerator, values: Values) -> Accelerator:
    """The accelerator with other coefficients; those that belong to the engine are left out."""
    own: dict[str, Any] = {name: value for name, value in values.items() if hasattr(device, name)}
    return replace(device, **own)


def predicted(ops: Ops, device: Accelerator, precision: str) -> Floats:
    """Seconds of every timing by the coefficients of an accelerator (no cache term)."""
    return FAMILIES[ops.kind].formula(ops, coefficients_of(device), Sheet.of(device, precision))


assert set(FAMILIES) <= set(SHAPES)

"""Lengths in tokens: distributions by kind, each with an optional range to clip to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np

from airi_sim.core.errors import BadInput, unknown
from airi_sim.workload.checks import real, whole

Sampler = Callable[[np.random.Generator, int], np.ndarray]
TABLE_LIMIT = 10_000_000


@dataclass(frozen=True)
class Lengths:
    """A distribution of lengths. `draw(rng, n)` gives n of them (int64), rounded and clipped to `min` .. `max`."""

    kind: str
    sample: Sampler
    min: int = 1
    max: int | None = None

    def draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """The next `n` lengths; drawing twice n/2 gives the same numbers."""
        return np.clip(np.rint(self.sample(rng, n)), self.min, self.max).astype(np.int64)


def lengths(config: Mapping[str, Any] | int, key: str = "lengths") -> Lengths:
    """A distribution from `{kind: ..., ...}`; keys that are null count as absent, a bare number is a constant.

    | kind | keys |
    |---|---|
    | constant | `mean` |
    | uniform | `min` and `max`, both included |
    | normal | `mean`, `sigma` (tokens) |
    | lognormal | `mean` (tokens, before clipping), `sigma` (of the logarithm) |
    | exponential | `mean` |
    | zipf | `exponent`: P(k) proportional to k**-exponent, from `min` to `max` |
    | empirical | `values`: one of them, each as likely |
    | quantiles | `quantiles`: pairs [share, length] from [0, ...] to [1, ...], straight lines between |

    All may have `min` (default 1) and `max`: lengths beyond are clipped, so mass gathers there and the mean moves.
    `key` is what messages call it. Raises BadInput.
    """
    given = config if isinstance(config, Mapping) else {"kind": "constant", "mean": config}
    options = {str(name): value for name, value in given.items() if value is not None}
    kind = str(options.pop("kind", None))
    if kind not in KINDS:
        raise unknown(f"{key}.kind", kind, KINDS)
    make, needed = KINDS[kind]
    _check_keys(key, kind, options, needed)
    low = whole(f"{key}.min", options.get("min", 1), 1)
    high = whole(f"{key}.max", options["max"], low) if "max" in options else None
    return Lengths(kind, make(key, options), low, high)


def _check_keys(key: str, kind: str, options: Mapping[str, Any], needed: Sequence[str]) -> None:
    allowed = dict.fromkeys([*needed, "min", "max"])
    for name in options:
        if name not in allowed:
            raise BadInput(f"{key}: kind {kind} has no '{name}', only {', '.join(allowed)}; set {key}.{name}=null.")
    for name in needed:
        if name not in options:
            raise BadInput(f"{key}: kind {kind} needs {key}.{name}.")


def _constant(key: str, options: Mapping[str, Any]) -> Sampler:
    value = whole(f"{key}.mean", options["mean"], 1)
    return lambda _, n: np.full(n, value)


def _uniform(key: str, options: Mapping[str, Any]) -> Sampler:
    low = whole(f"{key}.min", options["min"], 1)
    count = whole(f"{key}.max", options["max"], low) - low + 1
    return lambda rng, n: low + np.floor(rng.random(n) * count)


def _normal(key: str, options: Mapping[str, Any]) -> Sampler:
    mean = real(f"{key}.mean", options["mean"], positive=True)
    sigma = real(f"{key}.sigma", options["sigma"])
    return lambda rng, n: mean + sigma * rng.standard_normal(n)


def _lognormal(key: str, options: Mapping[str, Any]) -> Sampler:
    sigma = real(f"{key}.sigma", options["sigma"])
    mu = log(real(f"{key}.mean", options["mean"], positive=True)) - sigma * sigma / 2
    return lambda rng, n: np.exp(mu + sigma * rng.standard_normal(n))


def _exponential(key: str, options: Mapping[str, Any]) -> Sampler:
    mean = real(f"{key}.mean", options["mean"], positive=True)
    return lambda rng, n: mean * rng.standard_exponential(n)


def _zipf(key: str, options: Mapping[str, Any]) -> Sampler:
    exponent = real(f"{key}.exponent", options["exponent"])
    low = whole(f"{key}.min", options["min"], 1)
    high = whole(f"{key}.max", options["max"], low)
    if high - low > TABLE_LIMIT:
        raise BadInput(f"{key}: zipf keeps a table from min to max, at most {TABLE_LIMIT} lengths; lower {key}.max.")
    ends = np.cumsum(np.arange(low, high + 1, dtype=float) ** -exponent)
    ends /= ends[-1]
    return lambda rng, n: low + np.searchsorted(ends, rng.random(n), side="right")


def _empirical(key: str, options: Mapping[str, Any]) -> Sampler:
    values = _list(f"{key}.values", options["values"])
    table = np.array([whole(f"{key}.values", value, 1) for value in values])
    return lambda rng, n: table[np.floor(rng.random(n) * len(table)).astype(np.int64)]


def _quantiles(key: str, options: Mapping[str, Any]) -> Sampler:
    pairs = [_list(f"{key}.quantiles", pair) for pair in _list(f"{key}.quantiles", options["quantiles"])]
    if any(len(pair) != 2 for pair in pairs):
        raise BadInput(f"{key}.quantiles must be a list of pairs [share, length].")
    shares = [real(f"{key}.quantiles", share) for share, _ in pairs]
    sizes = [real(f"{key}.quantiles", size, positive=True) for _, size in pairs]
    if shares[0] != 0 or shares[-1] != 1 or shares != sorted(set(shares)) or sizes != sorted(sizes):
        raise BadInput(f"{key}.quantiles must rise from share 0 to share 1, and lengths must not fall.")
    return lambda rng, n: np.interp(rng.random(n), shares, sizes)


def _list(key: str, value: Any) -> Sequence[Any]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise BadInput(f"{key} must be a list with at least one entry, not {value!r}.")
    return value


KINDS: dict[str, tuple[Callable[[str, Mapping[str, Any]], Sampler], tuple[str, ...]]] = {
    "constant": (_constant, ("mean",)),
    "uniform": (_uniform, ("min", "max")),
    "normal": (_normal, ("mean", "sigma")),
    "lognormal": (_lognormal, ("mean", "sigma")),
    "exponential": (_exponential, ("mean",)),
    "zipf": (_zipf, ("exponent", "min", "max")),
    "empirical": (_empirical, ("values",)),
    "quantiles": (_quantiles, ("quantiles",)),
}
"""How each kind is made, and the keys it needs."""

"""What a run cost, from how busy its servers were and a price list."""

from __future__ import annotations

from collections.abc import Mapping

from airi_sim.core.errors import unknown

PRICES = ("usd_per_hour", "idle_watts", "busy_watts", "pue", "gco2_per_kwh")
JOULES_PER_KWH = 3.6e6


Cost = dict[str, float | None]


def total(busy_s: Mapping[str, float], duration_s: float, prices: Mapping[str, Mapping[str, float]] | None) -> Cost:
    """The cost of all servers, those that never ran included: `prices` has the list of each. What one of them does not
    allow to tell is None for all."""
    each = [cost(busy_s.get(server, 0.0), duration_s, price) for server, price in (prices or {}).items()]
    if not each or not busy_s.keys() <= (prices or {}).keys():
        return cost(0.0, 0.0, {})
    return {name: _sum([one[name] for one in each]) for name in each[0]}


def cost(busy_s: float, duration_s: float, price: Mapping[str, float]) -> Cost:
    """usd, joules and gco2 of one server held for `duration_s` and busy for `busy_s` seconds of them.

    Prices: usd_per_hour, idle_watts and busy_watts (joules needs both), pue (default 1: overhead of the building),
    gco2_per_kwh. What the list does not allow to tell is None. Idle energy is included.
    """
    known = dict(price)
    for name in known:
        if name not in PRICES:
            raise unknown("price", name, PRICES)
    usd = duration_s / 3600 * known["usd_per_hour"] if "usd_per_hour" in known else None
    joules = None
    if {"idle_watts", "busy_watts"} <= known.keys():
        idle = duration_s * known["idle_watts"]
        joules = known.get("pue", 1.0) * (idle + busy_s * (known["busy_watts"] - known["idle_watts"]))
    carbon = None if joules is None or "gco2_per_kwh" not in known else joules / JOULES_PER_KWH * known["gco2_per_kwh"]
    return {"usd": usd, "joules": joules, "gco2": carbon}


def _sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None

"""What a run cost, from how busy its servers were and a price list."""

from __future__ import annotations

from collections.abc import Mapping

from airi_sim.core.errors import unknown

PRICES = ("usd_per_hour", "idle_watts", "busy_watts", "pue", "gco2_per_kwh")
JOULES_PER_KWH = 3.6e6


def cost(
    busy_s: float, servers: int, duration_s: float, price: Mapping[str, float] | None = None
) -> dict[str, float | None]:
    """usd, joules and gco2 of `servers` replicas held for `duration_s`, together busy for `busy_s` seconds.

    Prices are per replica: usd_per_hour, idle_watts and busy_watts (joules needs both), pue (default 1: overhead of
    the building), gco2_per_kwh. What the list does not allow to tell is None. Idle energy is included.
    """
    known = dict(price or {})
    for name in known:
        if name not in PRICES:
            raise unknown("price", name, PRICES)
    held = servers * duration_s
    usd = held / 3600 * known["usd_per_hour"] if "usd_per_hour" in known else None
    joules = None
    if {"idle_watts", "busy_watts"} <= known.keys():
        idle = held * known["idle_watts"]
        joules = known.get("pue", 1.0) * (idle + busy_s * (known["busy_watts"] - known["idle_watts"]))
    carbon = None if joules is None or "gco2_per_kwh" not in known else joules / JOULES_PER_KWH * known["gco2_per_kwh"]
    return {"usd": usd, "joules": joules, "gco2": carbon}

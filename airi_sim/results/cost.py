"""What a run cost: its servers were held the whole time, and drew power by what they did (results.energy)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from airi_sim.core.errors import unknown
from airi_sim.results.columns import Columns
from airi_sim.results.energy import WORK, Intensity, at_full_power

PRICES = ("usd_per_hour", "idle_watts", "busy_watts", "pue", "gco2_per_kwh")
FIGURES = ("usd", "joules", "idle_joules", "gco2")
JOULES_PER_KWH = 3.6e6
MILLION = 1e6

Cost = dict[str, float | None]


def bill(
    plans: Columns, duration_s: float, output_tokens: float, prices: Mapping[str, Mapping[str, Any]] | None
) -> Cost:
    """The cost of all servers, those that never ran included: `prices` has the list of each. What one of them does not
    allow to tell is None for all.

    usd, joules (idle included), idle_joules, gco2; usd_per_mtok, joules_per_mtok: per million output tokens.
    """
    passes, none = by_server(plans), np.empty(0, dtype=np.int64)
    each = [cost(plans, passes.get(name, none), duration_s, price) for name, price in (prices or {}).items()]
    known = bool(each) and passes.keys() <= (prices or {}).keys()
    found = {figure: _sum([one[figure] for one in each]) if known else None for figure in FIGURES}
    return found | {f"{name}_per_mtok": _share(found[name], output_tokens) for name in ("usd", "joules")}


def by_server(plans: Columns) -> dict[str, np.ndarray]:
    """The rows that are passes, by the server that ran them."""
    names, server = plans.servers()
    rows = np.flatnonzero(plans.texts("kind") == "pass")
    rows = rows[np.argsort(server[rows], kind="stable")]
    found = np.split(rows, np.flatnonzero(np.diff(server[rows])) + 1)
    return {names[server[one[0]]]: one for one in found if len(one)}


def cost(plans: Columns, rows: np.ndarray, duration_s: float, price: Mapping[str, Any]) -> Cost:
    """The cost of one server held for `duration_s`, whose passes are these `rows`.

    Prices: usd_per_hour, idle_watts and busy_watts (joules need both), pue (default 1: overhead of the building),
    gco2_per_kwh (see Intensity), and what is known of its work (energy.WORK). What the list does not allow to tell is
    None. Power is spread evenly over the passes of a row.
    """
    for name in price:
        if name not in PRICES + WORK:
            raise unknown("price", name, PRICES + WORK)
    found: Cost = dict.fromkeys(FIGURES)
    if "usd_per_hour" in price:
        found["usd"] = duration_s / 3600 * price["usd_per_hour"]
    if not {"idle_watts", "busy_watts"} <= price.keys():
        return found
    pue, idle = price.get("pue", 1.0), price["idle_watts"]
    drawn = at_full_power(plans, rows, price) * (price["busy_watts"] - idle)
    found["idle_joules"] = pue * duration_s * idle
    found["joules"] = found["idle_joules"] + pue * float(drawn.sum())
    if "gco2_per_kwh" in price:
        grid = Intensity(price["gco2_per_kwh"])
        while_held = float(grid.until(np.array([duration_s]))[0]) * idle
        during = grid.mean(plans.floats("start_s")[rows], plans.floats("end_s")[rows])
        found["gco2"] = pue * (while_held + float((drawn * during).sum())) / JOULES_PER_KWH
    return found


def _sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _share(value: float | None, tokens: float) -> float | None:
    return None if value is None or not tokens else value / tokens * MILLION

"""A comparison as its folder holds it: what `airi compare` leaves, and `airi report` finds again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airi_sim.hardware.again import WARN_DRIFT, drift, level
from airi_sim.results.compare import compare, mean_size
from airi_sim.results.parity import Choice, Parity, first_divergence
from airi_sim.results.parts import PASSES
from airi_sim.results.run import Run, load
from airi_sim.results.tables import read_table

if TYPE_CHECKING:
    import pandas as pd

PROFILE = "profile.json"
LOADS = r"(?:load|unload) \d"
"""Choices of placements."""
FLOORS = {"repeat-run noise": "noise", "self-fit": "selffit"}
"""Floors by name, and their columns."""


@dataclass(frozen=True)
class Comparison:
    """One policy set in both worlds; `repeat` is a second measurement, `selffit` the simulation with a cost model that
    was fitted on the measured passes themselves."""

    name: str
    sim: Run
    measured: Run
    repeat: Run | None
    selffit: Run | None
    table: pd.DataFrame
    parity: Parity

    @property
    def profile(self) -> dict[str, Any]:
        """The calibration profile that the simulation predicted with."""
        content: dict[str, Any] = json.loads((self.sim.folder.parent / PROFILE).read_text())
        return content

    @property
    def mean_error(self) -> float:
        """Mean absolute error over mean, p50 and p95 of TTFT, TPOT and E2E, in percent."""
        return mean_size(self.table, "error_pct")

    @property
    def floors(self) -> dict[str, float]:
        """What the mean error is to be held against, in percent, by name: those that are known."""
        found = {name: mean_size(self.table, f"{key}_pct") for name, key in FLOORS.items()}
        return {name: value for name, value in found.items() if value == value}

    @property
    def level_pct(self) -> float | None:
        """By how much the measured passes would take longer in all by the profile than they did, in percent."""
        found = level(self.profile, read_table(self.measured.folder, PASSES).to_pylist())
        return None if found is None else 100 * found

    @property
    def drift_pct(self) -> float | None:
        """By how much the machine was slower in the second half of the run than in the first, in percent."""
        found = drift(self.profile)
        return None if found is None else 100 * found

    @property
    def loads(self) -> Parity | None:
        """Loads and unloads of the simulated run beside the measured ones; None where no model comes or goes."""
        sim, measured = (run.decisions[run.decisions["choice"].str.match(LOADS)] for run in (self.sim, self.measured))
        return first_divergence(sim, measured) if len(sim) or len(measured) else None

    @property
    def doubts(self) -> list[str]:
        """What should make one doubt the figures."""
        slower = self.drift_pct
        if slower is None or abs(slower) < 100 * WARN_DRIFT:
            return []
        change = f"{abs(slower):.0f} % {'more' if slower > 0 else 'less'} time"
        return [
            f"the machine drifted: equal batches took {change} in the second half of the measured run than in the "
            "first; measure again when it is quiet."
        ]


def load_comparison(folder: Path, name: str, repeat: bool = True) -> Comparison:
    """The comparison in a folder; `repeat=False` leaves out a second measurement that an earlier command left there."""
    sim, measured = load(folder / "sim"), load(folder / "measured")
    again, selffit = (load(folder / run) if (folder / run).is_dir() else None for run in ("repeat", "selffit"))
    again = again if repeat else None
    table = compare(sim, measured, again, selffit)
    return Comparison(name, sim, measured, again, selffit, table, _parity(folder / "parity.json"))


def load_comparisons(folder: Path) -> list[Comparison]:
    """The comparisons that `airi compare` left in a folder, by name; none if it is no such folder."""
    places = sorted(path.parent for path in [*folder.glob("parity.json"), *folder.glob("*/parity.json")])
    return [load_comparison(place, str(place.relative_to(folder)) if place != folder else "") for place in places]


def keep_parity(parity: Parity, folder: Path) -> None:
    """Write what a replay found, so that the report can be made again."""
    (folder / "parity.json").write_text(json.dumps(asdict(parity), indent=1))


def _parity(path: Path) -> Parity:
    kept = json.loads(path.read_text())
    for side in ("a", "b"):
        kept[side] = None if kept[side] is None else Choice(*kept[side])
    kept["before"] = tuple(Choice(*choice) for choice in kept["before"])
    return Parity(**kept)

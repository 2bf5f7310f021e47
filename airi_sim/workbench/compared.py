"""A comparison as its folder holds it: what `airi compare` leaves, and `airi report` finds again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airi_sim.results.parity import Choice, Parity
from airi_sim.results.run import Run, load

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Comparison:
    """One policy set in both worlds."""

    name: str
    sim: Run
    measured: Run
    repeat: Run | None
    table: pd.DataFrame
    parity: Parity

    @property
    def profile(self) -> dict[str, Any]:
        """The calibration profile that the simulation predicted with."""
        content: dict[str, Any] = json.loads((self.sim.folder.parent / "profile.json").read_text())
        return content

    @property
    def mean_error(self) -> float:
        """Mean absolute error over mean, p50 and p95 of TTFT, TPOT and E2E, in percent."""
        rows = [f"{metric}_{figure}" for metric in ("ttft", "tpot", "e2e") for figure in ("mean", "p50", "p95")]
        return float(self.table.loc[rows, "error_pct"].abs().mean())


def load_comparison(folder: Path, name: str, repeat: bool = True) -> Comparison:
    """The comparison in a folder; `repeat=False` leaves out a second measurement that an earlier command left there."""
    from airi_sim.results.compare import compare

    sim, measured = load(folder / "sim"), load(folder / "measured")
    again = load(folder / "repeat") if repeat and (folder / "repeat").is_dir() else None
    return Comparison(name, sim, measured, again, compare(sim, measured, again), _parity(folder / "parity.json"))


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

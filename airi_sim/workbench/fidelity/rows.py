"""What a dataset answers: measured and predicted figures, a row each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Say = Callable[[str], None]
"""Told in words what is being done."""


@dataclass(frozen=True)
class Row:
    """One figure of one run. `measured` and `predicted` are seconds; a run that could not be simulated has nan.

    run, model, accelerator, tp, workload   which run; a cell is (model, accelerator, tp, workload)
    metric                                  e2e_mean, ttft_p90, itl_mean, ...
    mode                                    how it was simulated, where there are several ways (sim2real: effective,
                                            requested, held_out), or which card (replays, unseen); in_sample: the
                                            coefficients were fitted to these very figures, so errors tell how well
                                            the form fits and nothing about what it predicts (splitwise)
    """

    run: str
    model: str
    accelerator: str
    tp: int
    workload: str
    metric: str
    measured: float
    predicted: float
    mode: str = ""
    dataset: str = ""

    @property
    def ape(self) -> float:
        """Absolute percentage error."""
        return 100.0 * abs(self.predicted / self.measured - 1.0)

    @property
    def cell(self) -> tuple[str, str, int, str]:
        """Runs of one cell differ in limits of the server or in the day they were made."""
        return self.model, self.accelerator, self.tp, self.workload


@dataclass(frozen=True)
class Options:
    """How to score. `config` is the composed config of the command: what a recorded run does not fix comes from it.

    seeds   how many seeds where arrivals are drawn
    runs    names of runs to score (words that occur in them), empty for all
    modes   of sim2real
    workers processes that simulate at once
    """

    config: Mapping[str, Any]
    seeds: int = 5
    runs: tuple[str, ...] = ()
    modes: tuple[str, ...] = ("effective", "requested", "held_out")
    workers: int = 1

    def chosen(self, run: str) -> bool:
        """Whether the run is among those asked for."""
        return not self.runs or any(word in run for word in self.runs)

"""Functions of time made of steps and ramps: cumulative service, queue lengths, throughput."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from airi_sim.results.columns import Floats, Ints


@dataclass(frozen=True)
class Cumulative:
    """A non-decreasing amount over time: steps (an amount at an instant) and ramps (an amount spread evenly)."""

    step_times: Floats
    step_sums: Floats
    knots: Floats
    at_knots: Floats
    slopes: Floats

    @staticmethod
    def of(steps: tuple[Floats, Floats], ramps: tuple[Floats, Floats, Floats]) -> Cumulative:
        """From steps (times, amounts) and ramps (starts, ends, amounts); those at undefined times are left out."""
        times, amounts = _defined(*steps)
        start, end, amount = _defined(*ramps)
        long = end > start
        times = np.concatenate([times, end[~long]])
        amounts = np.concatenate([amounts, amount[~long]])
        order = np.argsort(times, kind="stable")
        sums = np.concatenate([[0.0], np.cumsum(amounts[order])])
        return Cumulative(times[order], sums, *_knots(start[long], end[long], amount[long]))

    def at(self, times: Floats, before: bool = False) -> Floats:
        """The amount up to the times (`before`: without the steps at those very instants)."""
        steps = self.step_sums[np.searchsorted(self.step_times, times, side="left" if before else "right")]
        if not len(self.knots):
            return steps
        place = np.searchsorted(self.knots, times, side="right") - 1
        ramped = self.at_knots[place] + self.slopes[place] * (times - self.knots[place])
        return steps + np.where(place < 0, 0.0, ramped)

    @property
    def total(self) -> float:
        """The amount in the end."""
        return float(self.at(np.array([np.inf]))[0]) if not len(self.knots) else float(self.at(self.changes()[-1:])[0])

    def changes(self) -> Floats:
        """All times at which something begins, ends or steps, in order."""
        return np.union1d(self.step_times, self.knots)


def levels(server: Ints, times: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Sum over servers of what each last reported: (times, sums), a step function that holds to the right."""
    times, values, where = _defined(times, values, server.astype(np.float64))
    order = np.lexsort((np.arange(len(times)), times, where))
    changes = np.diff(values[order], prepend=0.0)
    first = np.diff(where[order], prepend=-1.0) != 0
    changes[first] = values[order][first]
    again = np.argsort(times[order], kind="stable")
    return times[order][again], np.cumsum(changes[again])


def _knots(start: Floats, end: Floats, amount: Floats) -> tuple[Floats, Floats, Floats]:
    rates = amount / (end - start)
    knots, place = np.unique(np.concatenate([start, end]), return_inverse=True)
    change = np.bincount(place, np.concatenate([rates, -rates]), minlength=len(knots)).astype(np.float64)
    slopes = np.cumsum(change)
    grown = np.cumsum(slopes[:-1] * np.diff(knots))
    return knots, np.concatenate([[0.0][: len(knots)], grown]), slopes


def _defined(*columns: Floats) -> tuple[Floats, ...]:
    kept = ~np.any([np.isnan(column) for column in columns], axis=0)
    return tuple(column[kept] for column in columns)

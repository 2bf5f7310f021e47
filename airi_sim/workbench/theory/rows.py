"""A closed form beside what the engine did: experiments, replications, errors, verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import sqrt
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

EXACT, ASYMPTOTIC, BOUND = "exact", "asymptotic", "bound"
SHARE = 0.01
"""Of the closed form: an error below this passes however precise the run was."""
ERRORS = 3.0
"""Standard errors that chance is granted."""
BLUR = 0.06
"""Of the closed form: a row whose 3 standard errors are more proves nothing, and fails."""
FEWEST = 100
"""Customers of a replication, whatever the effort."""
AGAIN = 4
"""A row that fails is decided by that many times the replications, drawn anew: chance fails twice hardly ever, an error
always."""


class Sample(NamedTuple):
    """What one replication gave: figures by name, and deviations of inputs from what they are on average (controls)."""

    figures: Mapping[str, float]
    controls: Sequence[float] = ()


@dataclass(frozen=True)
class Claim:
    """A closed form for a figure of an experiment.

    `tag` exact: equal, within max(1 %, 3 standard errors). asymptotic: the form holds in a limit; `note` says which,
    and `allowance` (absolute) is what may be missing to it. bound: the figure is at most the form (`above`: at least).
    `absolute` replaces the limit where both sides compute the same path, and nothing is left to chance.
    """

    figure: str
    name: str
    form: float
    source: str
    tag: str = EXACT
    unit: str = "s"
    note: str = ""
    allowance: float = 0.0
    above: bool = False
    absolute: float | None = None


@dataclass(frozen=True)
class Experiment:
    """A world that can be run again with other random numbers, and what theory says about it.

    `sample(rng, n)` runs it once with n customers. `quick`: cheap enough for every commit. One replication is enough
    where nothing is random.
    """

    name: str
    sample: Callable[[np.random.Generator, int], Sample]
    claims: tuple[Claim, ...]
    customers: int = 20_000
    replications: int = 20
    quick: bool = False


@dataclass(frozen=True)
class Row:
    """One line of the table. `error`: distance from what the form allows, `limit`: the largest that passes."""

    family: str
    name: str
    source: str
    tag: str
    closed_form: float
    engine: float
    se: float
    error: float
    limit: float
    unit: str
    passed: bool
    replications: int
    note: str = field(default="")
    noisy: bool = False
    """Within its limit, but that limit is too wide to prove anything: not passed."""

    def check(self) -> dict[str, Any]:
        """For checks.json."""
        detail = f"engine {self.engine:.6g}, {self.tag} form {self.closed_form:.6g} {self.unit}"
        detail += f", off by {self.error:.2g} (limit {self.limit:.2g}, SE {self.se:.2g})"
        detail += ": too noisy to tell, raise theory.effort" if self.noisy else ""
        return {**asdict(self), "name": f"{self.family}: {self.name}", "figure": self.error, "detail": detail}


def perform(experiment: Experiment, family: str, seed: int, effort: float = 1.0) -> list[Row]:
    """Replicate and compare; look again where a row fails, chance may have done it. `effort` times the customers, where
    they are drawn more than once."""
    count, n = experiment.replications, experiment.customers
    n = n if count == 1 else max(FEWEST, round(effort * n))
    rows = _compare(experiment, family, _replicate(experiment, seed, range(count), n))
    if count == 1 or all(row.passed for row in rows):
        return rows
    second = _compare(experiment, family, _replicate(experiment, seed, range(count, (1 + AGAIN) * count), n))
    return [row if row.passed else again for row, again in zip(rows, second, strict=True)]


def _replicate(experiment: Experiment, seed: int, numbers: range, n: int) -> list[Sample]:
    key = crc32(experiment.name.encode())
    seeds = [np.random.SeedSequence(seed, spawn_key=(key, number)) for number in numbers]
    return [experiment.sample(np.random.default_rng(one), n) for one in seeds]


def _compare(experiment: Experiment, family: str, samples: Sequence[Sample]) -> list[Row]:
    controls = np.array([sample.controls for sample in samples], dtype=float)
    rows = []
    for claim in experiment.claims:
        values = np.array([sample.figures[claim.figure] for sample in samples], dtype=float)
        rows.append(judge(claim, family, *estimate(values, controls), len(values)))
    return rows


def estimate(values: np.ndarray, controls: np.ndarray) -> tuple[float, float]:
    """Mean and standard error over independent replications, what the controls explain taken out by regression
    (Lavenberg & Welch 1981). `controls` has a row a replication; its columns have mean 0."""
    n = len(values)
    if n == 1:
        return float(values[0]), 0.0
    used = controls[:, controls.std(axis=0) > 0]
    design = np.column_stack([np.ones(n), used])
    if n <= design.shape[1] + 1:
        raise ValueError(f"{n} replications are too few for {used.shape[1]} controls")
    fit, *_ = np.linalg.lstsq(design, values, rcond=None)
    left = values - design @ fit
    variance = float(left @ left) / (n - design.shape[1])
    return float(fit[0]), sqrt(variance * float(np.linalg.inv(design.T @ design)[0, 0]))


def judge(claim: Claim, family: str, engine: float, se: float, replications: int) -> Row:
    """The verdict on one figure."""
    off = engine - claim.form
    noise = ERRORS * se
    if claim.tag == BOUND:
        error, limit = max(0.0, -off if claim.above else off), noise
    else:
        error, limit = max(0.0, abs(off) - claim.allowance), max(SHARE * abs(claim.form), noise)
    if claim.absolute is not None:
        limit = claim.absolute
    blurred = noise > BLUR * abs(claim.form) and claim.form != 0
    note = "; ".join(filter(None, [claim.note, "too noisy to tell" if blurred else ""]))
    return Row(
        family, claim.name, claim.source, claim.tag, claim.form, engine, se, error, limit, claim.unit,
        error <= limit and not blurred, replications, note, error <= limit and blurred,
    )  # fmt: skip

"""One server that takes turns: SRPT, preemptive SJF, LAS and preemptive priorities on a model server with one seat.

A pass takes a fixed time whatever it processes, so a job that made way and starts again from its tokens so far loses
nothing: preemptive and resumed, in steps of a pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from airi_sim.core.protocols import Draft, Predictor
from airi_sim.core.types import FOREVER, Horizon, Job
from airi_sim.policies.predictors import Perfect
from airi_sim.policies.preemption import Preemptive
from airi_sim.policies.queues import Las, Srpt
from airi_sim.policies.queues.waiting import Keyed
from airi_sim.workbench.theory import forms
from airi_sim.workbench.theory.families.lockstep import lengths
from airi_sim.workbench.theory.families.one_server import deviations, kept
from airi_sim.workbench.theory.families.orders import RATES, in_order_of_arrival
from airi_sim.workbench.theory.rig import Customers, PassCost, Station, Tokens, generate, poisson, run, ticks
from airi_sim.workbench.theory.rows import ASYMPTOTIC, Claim, Experiment, Sample
from airi_sim.workbench.theory.sizes import Size, exponential, hyper

PASSES = 200
"""Mean passes of a job, which is one second."""
QUANTUM = 4
"""Passes by which LAS lets a job run ahead."""


def experiments() -> list[Experiment]:
    """By remaining work, by size, by attained service, by class."""
    return [
        _discipline("SRPT", exponential(), 0.5, _srpt, forms.srpt_time, "Schrage & Miller 1966", 6_000, quick=True),
        _discipline("SRPT", exponential(), 0.8, _srpt, forms.srpt_time, "Schrage & Miller 1966", 12_000),
        _discipline("SRPT", hyper(4), 0.8, _srpt, forms.srpt_time, "Schrage & Miller 1966", 12_000),
        _discipline("preemptive SJF", exponential(), 0.8, _psjf, forms.psjf_time, "Wierman & Harchol-Balter", 12_000),
        _discipline("LAS", exponential(), 0.5, _las, forms.las_time, "Kleinrock 1976", 2_000, QUANTUM),
        _discipline("LAS", hyper(4), 0.5, _las, forms.las_time, "Kleinrock 1976", 3_000, QUANTUM),
        _priorities(),
    ]


class Ranked(Keyed):
    """A job that ranks before a running one takes its place; ranks never change. A queue as a user would write it."""

    def __init__(self, rank: Callable[[Job], float] | None = None) -> None:
        super().__init__()
        self.predictor: Predictor = Perfect()
        self.rank = rank or self.predictor.predict

    def key(self, job: Job, now: float) -> Any:
        return self.rank(job), job.arrived

    def contest(self, draft: Draft, now: float) -> tuple[Job | None, Horizon]:
        """The running job that ranks last, if the head ranks before it."""
        head = self.peek(now)
        last = max(draft.preemptible.values(), key=self.rank, default=None)
        beaten = head is not None and last is not None and self.rank(last) > self.rank(head)
        return (last if beaten else None), Horizon(FOREVER)


def _srpt() -> Srpt:
    return Srpt(Perfect())


def _psjf() -> Ranked:
    return Ranked()


def _las() -> Las:
    return Las(QUANTUM)


def _by_priority() -> Ranked:
    return Ranked(lambda job: job.priority)


def _one_seat(queue: Callable[[], Any]) -> Station:
    return Station(Tokens(PassCost(1 / PASSES), seats=1, queue=queue, batcher=Preemptive), "generate")


def _arrive(rng: np.random.Generator, load: float, size: Size, n: int) -> tuple[Customers, list[float], np.ndarray]:
    """Customers, controls, and the passes each needs."""
    outputs = lengths(size, PASSES, rng, n)
    arrivals = poisson(rng, load, n)
    alike = Customers(arrivals, ticks(outputs / PASSES))
    controls = [*deviations(alike, load, size), in_order_of_arrival(alike, load, size)]
    return Customers(arrivals, np.ones(n, dtype=np.int64), outputs), controls, outputs


def _discipline(
    what: str, size: Size, load: float, queue: Callable[[], Any], form: Callable[[float, Size], float], source: str,
    n: int, quantum: int = 1, quick: bool = False,
) -> Experiment:  # fmt: skip
    def sample(rng: np.random.Generator, n: int) -> Sample:
        who, controls, _ = _arrive(rng, load, size, n)
        return Sample({"time": kept(run([_one_seat(queue)], who, generate).times).mean()}, controls)

    name = f"{what}, M/{size.name}/1, load {load:g}"
    half = load / PASSES / 2
    allowance = quantum / PASSES
    note = f"for many passes a job: {half:.2g} s added for half a pass of waiting, {allowance:.2g} s allowed for steps"
    claim = Claim(
        "time", f"{name}: mean time", form(load, size) + half, source, ASYMPTOTIC, note=note, allowance=allowance
    )
    return Experiment(name, sample, (claim,), n, quick=quick)


def _priorities() -> Experiment:
    size, rate = exponential(), sum(RATES)

    def sample(rng: np.random.Generator, n: int) -> Sample:
        plain, controls, outputs = _arrive(rng, rate, size, n)
        classes = rng.choice(len(RATES), n, p=np.array(RATES) / rate)
        who = Customers(plain.arrivals, plain.sizes, outputs, priorities=classes)
        times = kept(run([_one_seat(_by_priority)], who, generate).times)
        return Sample({f"T{k}": times[kept(classes) == k].mean() for k in range(len(RATES))}, controls)

    half = rate / PASSES / 2
    note = f"for many passes a job: {half:.2g} s added for half a pass of waiting, {1 / PASSES:.2g} s allowed for steps"
    claims = [
        Claim(
            f"T{k}", f"preemptive priority {k + 1} of 3: mean time", time + half, "White & Christie 1958", ASYMPTOTIC,
            note=note, allowance=1 / PASSES,
        )
        for k, time in enumerate(forms.preemptive_times(RATES))
    ]  # fmt: skip
    return Experiment("priorities, preemptive", sample, tuple(claims), 15_000)

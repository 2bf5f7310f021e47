"""What an engine adds to its kernels, from runs under load: host time per pass and per sequence, and the API path.

A stage in steady state is one equation. By Little's law rate x (E2E - TTFT) sequences decode at once, so the kernels of
its mean pass are known, and what the mean time between tokens is above them is host work: step_s + streamed_s x
sequences (sequence_s is what runs without an API show). TTFT beyond the passes that a request waits for and the one
that serves it is the API path. Three figures per engine; models and workloads have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp

import numpy as np

from airi_sim.hardware.cost import PhysicsCost
from airi_sim.hardware.deployment import Deployment
from airi_sim.hardware.serving import Serving
from airi_sim.workbench.fidelity.plans import decode_plan, mixed_plan

OFF = 0.03
"""Relative error at which the loss turns from squares to magnitudes: some runs were made on slower days."""


@dataclass(frozen=True)
class Stage:
    """A stretch of a run in steady state. `tokens` of a prompt of which `fresh` are not in the prefix cache, `common`
    of which are read by other sequences too; `output` tokens; measured seconds."""

    deployment: Deployment
    rate: float
    tokens: float
    fresh: float
    common: float
    output: float
    ttft: float
    itl: float
    e2e: float


@dataclass(frozen=True)
class Passes:
    """The mean pass of a stage: how many sequences, its seconds without the host work that is fitted, and by how much
    a pass that takes a prompt in is longer."""

    sequences: float
    mean: float
    mixed: float


def passes(stage: Stage) -> Passes:
    """Costed without the host work that is fitted; a share of the passes takes in a prompt, as arrivals are Poisson."""
    bare = replace(stage.deployment.serving, step_s=0.0, streamed_s=0.0)
    cost = PhysicsCost(replace(stage.deployment, serving=bare))
    n = stage.rate * (stage.e2e - stage.ttft)
    whole = max(1, round(n))
    context = round(whole * (stage.tokens + stage.output / 2))
    shared = round(whole * stage.common)
    alone = cost.affine(decode_plan(whole, context, shared)).first
    mixed = cost.affine(mixed_plan(whole, context, shared, round(stage.fresh), round(stage.tokens - stage.fresh))).first
    share = 1 - exp(-stage.rate * stage.itl)
    return Passes(n, (1 - share) * alone + share * mixed, mixed - alone)


def fitted(stages: Sequence[Stage]) -> Serving:
    """The serving engine of `stages` with step_s, streamed_s and request_s that fit them best."""
    from scipy.optimize import least_squares

    found = [passes(stage) for stage in stages]
    design = np.array([[1.0, one.sequences] for one in found])
    kernels = np.array([one.mean for one in found])
    itl = np.array([stage.itl for stage in stages])

    def off(host: np.ndarray) -> np.ndarray:
        return (kernels + design @ (host * SCALES) - itl) / itl

    host = least_squares(off, np.ones(2), bounds=(0, np.inf), loss="soft_l1", f_scale=OFF).x * SCALES
    serving: Serving = stages[0].deployment.serving
    ahead = 1.5 + serving.ahead
    api = [stage.ttft - ahead * stage.itl - one.mixed for stage, one in zip(stages, found, strict=True)]
    request = max(0.0, float(np.median(api)) - serving.stream_s)
    return replace(serving, step_s=float(host[0]), streamed_s=float(host[1]), request_s=request)


SCALES = np.array([1e-3, 1e-5])

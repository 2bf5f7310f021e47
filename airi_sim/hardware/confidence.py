"""How far the times of a run may be off, from the residuals of the fits behind them.

A family of kernels whose fit has a spread of sigma may be off by that everywhere at once: a model uses the same few
shapes in every pass. So each family is slowed down by its sigma, the passes of the run are costed again, and the
changes of the total are added in squares: families err independently.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from airi_sim.core.protocols import CostModel
from airi_sim.core.types import Plan
from airi_sim.hardware.accelerator import COEFFICIENTS, Accelerator
from airi_sim.hardware.choose import cost_model
from airi_sim.hardware.coverage import Passes
from airi_sim.hardware.deployment import Deployment
from airi_sim.hardware.serving import Serving

SOME = 128
"""Passes of a run that are costed again."""
NINETY = 1.645
"""Standard deviations on either side that hold 90 % of a normal distribution."""
SIGMAS = {"measured": 0.10, "high": 0.10, "medium": 0.15, "low": 0.25}
"""Spread of a family whose fit left none: a guess by the confidence in the accelerator or the engine. 8-12 % are usual
for products on fitted accelerators, 15-25 % for the data sheet with the coefficients of others."""
FAMILIES = ("gemm", "decode", "prefill", "mixed", "moe", "small")
FACTORS = ("mixed",)
"""Coefficients without a unit that make times longer as they grow; all others without one are reachable shares."""
HOST = ("step_s", "sequence_s", "streamed_s", "token_s", "prompt_s", "sampler_s", "layer_s", "launch_s")
"""Coefficients of the engine that passes contain."""


def spread(deployment: Deployment, passes: Passes) -> float:
    """Relative standard deviation of the time of the passes of one pool; nan where nothing is known of it."""
    if deployment.accelerator is None or deployment.model is None or not len(passes):
        return float("nan")
    some = representative(passes)
    if deployment.accelerator.profile is not None:
        return float(deployment.accelerator.profile["kinds"]["generate"].get("residual_rel", float("nan")))
    base = _total(cost_model(deployment), some)
    changes = [_total(cost_model(slow), some) / base - 1 for slow in _slowed(deployment)]
    return float(np.sqrt(np.sum(np.square(changes))))


def representative(passes: Passes, count: int = SOME) -> Passes:
    """Rows at equal steps of time, so that each stands for as many seconds."""
    ends = np.cumsum(passes.seconds)
    if len(passes) <= count or ends[-1] <= 0:
        return passes
    return passes.take(np.unique(np.searchsorted(ends, (np.arange(count) + 0.5) / count * ends[-1])))


def _slowed(deployment: Deployment) -> list[Deployment]:
    """The deployment with one family of coefficients after the other worse by its sigma."""
    device, engine = deployment.accelerator, deployment.serving
    slow = [
        replace(deployment, accelerator=_worse(device, COEFFICIENTS[kind], sigma_of(device, kind))) for kind in FAMILIES
    ]
    return [*slow, replace(deployment, serving=_slower(engine))] if engine is not None else slow


def sigma_of(device: Accelerator, kind: str) -> float:
    """Spread of a family: of its fit, else a guess."""
    if kind in device.residuals:
        return float(device.residuals[kind])
    return SIGMAS[device.confidence if kind in device.ranges else "low"]


def _worse(device: Accelerator, names: tuple[str, ...], sigma: float) -> Accelerator:
    values: dict[str, Any] = {
        name: getattr(device, name) * (1 + sigma if name.endswith("_s") or name in FACTORS else 1 / (1 + sigma))
        for name in names
        if name != "blend"
    }
    return replace(device, **values)


def _slower(engine: Serving) -> Serving:
    sigma = SIGMAS[engine.confidence]
    values: dict[str, Any] = {name: getattr(engine, name) * (1 + sigma) for name in HOST if hasattr(engine, name)}
    return replace(engine, **values)


def _total(cost: CostModel, passes: Passes) -> float:
    """Seconds of one pass of each row, each weighed as it was in the run."""
    firsts = np.array([cost.affine(_plan(passes, i)).first for i in range(len(passes))])
    return float(np.sum(firsts * passes.passes))


def _plan(passes: Passes, i: int) -> Plan:
    """The middle pass of a row; all of its prompt tokens as one chunk from the start of a prompt."""
    decodes, prompt = int(passes.decodes[i]), int(passes.prompt[i])
    context = int(passes.context[i]) + decodes * (int(passes.passes[i]) // 2)
    return Plan(
        0, 0.0, [(None, prompt)] if prompt else [], [], sequences=decodes, context=context,
        longest=context // max(1, decodes), prefill_tokens=prompt, prefill_attention=prompt * prompt,
        prefill_context=prompt,
    )  # fmt: skip


def interval(
    summary: Mapping[str, Any], sigma: float, load: float, drain: float
) -> dict[str, dict[str, list[float] | None]]:
    """[least, most] with 90 % confidence of every time in a summary, by metric and statistic.

    Times of passes are off as the passes are. Waiting is off by more: in a queue of load rho it grows by 1 / (1 - rho)
    of what service grows (M/G/1); an overloaded queue grows with the work instead, of which what is left after the
    last arrival waits: 1 / `drain`, the share of the run after the last arrival. `load` is rho, the busy share of the
    busiest replica.
    """
    amplified = 1 + min(1 / max(1 - load, 1e-3), 1 / max(drain, 1e-3))
    found: dict[str, dict[str, list[float] | None]] = {}
    for metric in ("ttft_s", "tpot_s", "itl_s", "e2e_s"):
        values = summary.get(metric) or {}
        waiting = _share(summary, metric)
        off = NINETY * sigma * (1 - waiting + waiting * amplified)
        found[metric] = {name: None if value is None else [value / (1 + off), value * (1 + off)]
                         for name, value in values.items()}  # fmt: skip
    return found


def _share(summary: Mapping[str, Any], metric: str) -> float:
    """Which part of a time was waiting, in the mean; none of it between tokens."""
    whole, queue = (summary.get(name) or {} for name in (metric, "queue_s"))
    if metric in ("tpot_s", "itl_s") or not whole.get("mean") or queue.get("mean") is None:
        return 0.0
    return float(min(1.0, max(0.0, queue["mean"] / whole["mean"])))

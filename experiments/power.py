"""How well three numbers tell what an accelerator draws, and what they are.

    python -m experiments.power
    python -m experiments.power data.dir=FOLDER hydra.run.dir=DIR

Question: given how long the passes took, does idle + (tdp - idle) * min(1, base + memory * m + compute * c) tell the
power of Llama-2-70B on 2, 4 and 8 A100 (Splitwise's table; its H100 rows have no power)? m and c are the shares of
bandwidth and of arithmetic that the passes used (airi_sim.hardware.power). The numbers are fitted to the mean power of
a run and, with less weight, to its peak, which is that of the prompt; then once more without each size of node, to see
how they hold where they were not fitted. Prompts of 8,192 tokens are left out of the fit and shown: their mean power is
a quarter of that of shorter ones, whose decoding they share.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airi_sim.core.errors import BadInput
from airi_sim.hardware.deployment import Deployment
from airi_sim.hardware.power import FITTED, Power, work
from airi_sim.results.frames import frame, reference
from airi_sim.workbench.config import load_config, plain
from airi_sim.workbench.objects import instantiate
from airi_sim.workbench.plugins import group_node
from experiments.parts import start

if TYPE_CHECKING:
    import pandas as pd

TABLE = "fidelity/splitwise_perf.csv"
MODEL, ACCELERATOR, HARDWARE = "llama-2-70b", "a100-sxm-80", "a100-80gb"
LONGEST = 4096
PEAK_WEIGHT = 0.3


def measured(folder: Path) -> pd.DataFrame:
    """The points with power: what ran, shares of the TDP, and the shares m and c of prompt and tokens."""
    table = reference(folder, TABLE)
    table = table[(table.hardware == HARDWARE) & (table.avg_power_frac_tdp > 0)].reset_index(drop=True)
    return table.join(frame([used(point) for point in table.itertuples()]))


@cache
def choice(group: str, name: str) -> Any:
    """A choice of conf as an object."""
    return instantiate(group_node(group, name), group)


def used(point: Any) -> dict[str, float]:
    """Seconds of the prompt and of all tokens, and what both used of bandwidth (m) and arithmetic (c)."""
    model, device = choice("model", MODEL), choice("accelerator", ACCELERATOR)
    deployment = Deployment("splitwise", "generate", model, device, precision="fp16", tp=point.tensor_parallel)
    batch, prompt, half = point.batch_size, point.prompt_size, point.prompt_size + point.token_size / 2
    found = {"prompt_s": point.prompt_ms / 1e3, "tokens_s": point.token_ms / 1e3 * (point.token_size - 1)}
    for name, unit in (("m", Power(0.0, 1.0, 0.0)), ("c", Power(0.0, 0.0, 1.0))):
        part = work(deployment, unit)
        found[f"prompt_{name}"] = (part["pass_s"] + batch * prompt * part["prompt_s"]) / found["prompt_s"]
        decode = part["pass_s"] + batch * (part["decode_s"] + half * part["context_s"])
        found[f"token_{name}"] = decode / (point.token_ms / 1e3)
    return found


def predicted(power: Power, points: pd.DataFrame, idle: float) -> tuple[Any, Any]:
    """Mean and peak power of each point as shares of the TDP; `idle` is such a share too."""
    prompt, token = (
        idle
        + (1 - idle) * (power.base + power.memory * points[f"{p}_m"] + power.compute * points[f"{p}_c"]).clip(upper=1)
        for p in ("prompt", "token")
    )
    whole = points.prompt_s + points.tokens_s
    return (prompt * points.prompt_s + token * points.tokens_s) / whole, prompt


def fit(points: pd.DataFrame, idle: float) -> Power:
    """Least squares of relative errors."""
    import numpy as np
    from scipy.optimize import least_squares

    def errors(numbers: Any) -> Any:
        mean, peak = predicted(Power(*numbers), points, idle)
        over = peak / points.peak_power_frac_tdp.clip(upper=1) - 1
        return np.concatenate([mean / points.avg_power_frac_tdp - 1, PEAK_WEIGHT * over])

    return Power(*least_squares(errors, [0.2, 0.8, 1.0], bounds=([0, 0, 0], [1, 5, 5])).x.tolist())


def errors_of(power: Power, points: pd.DataFrame, idle: float) -> str:
    """How far the power is off, in words."""
    mean, peak = predicted(power, points, idle)
    off, over = (mean / points.avg_power_frac_tdp - 1).abs(), (peak / points.peak_power_frac_tdp - 1).abs()
    return (
        f"base {power.base:.3f}  memory {power.memory:.3f}  compute {power.compute:.3f}   mean power off by "
        f"{off.mean():.1%} (median {off.median():.1%}, most {off.max():.1%}), peak by {over.mean():.1%}"
    )


def main(overrides: Sequence[str]) -> int:
    """Fit and print; returns the exit code (2: bad input)."""
    try:
        points = measured(Path(plain(load_config(overrides))["data"]["dir"]))
    except BadInput as error:
        print(f"power: {error}", file=sys.stderr)
        return 2
    device = choice("accelerator", ACCELERATOR)
    idle = device.idle_w / device.tdp_w
    short = points[points.prompt_size <= LONGEST]
    print(f"{len(short)} points, {MODEL} on {ACCELERATOR}, idle {device.idle_w:g} of {device.tdp_w:g} W")
    print(f"fitted:          {errors_of(fit(short, idle), short, idle)}")
    print(f"as shipped:      {errors_of(FITTED, short, idle)}")
    for ranks in sorted(set(short.tensor_parallel)):
        one = short.tensor_parallel == ranks
        print(f"without {ranks} of it:  {errors_of(fit(short[~one], idle), short[one], idle)}")
    print(f"longer prompts:  {errors_of(FITTED, points[points.prompt_size > LONGEST], idle)}")
    return 0


if __name__ == "__main__":
    sys.exit(start(main, __doc__))

"""Llama-2-70B on DGX nodes, one batch at a time: prompt time and token time by batch and tensor parallelism.

Splitwise (ISCA'24) characterised the two phases: a batch of equal prompts is processed in one pass, then decodes in
lockstep. So a point is a cost, not a simulation. The coefficients of `serving=vllm-0.2` were fitted to these
very points: rows are `in_sample`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from airi_sim.core.protocols import CostModel
from airi_sim.hardware.choose import cost_model
from airi_sim.hardware.deployment import Deployment
from airi_sim.workbench.fidelity.plans import decode_plan, prompt_plan
from airi_sim.workbench.fidelity.rows import Options, Row, Say
from airi_sim.workbench.objects import instantiate
from airi_sim.workbench.plugins import group_node

NEEDS = ("fidelity/splitwise_perf.csv",)
ACCELERATORS = {"a100-80gb": "a100-sxm-80", "h100-80gb": "h100-sxm"}
"""Nodes of the table; what a power cap does to times is not modelled, so capped nodes are left out."""
MODEL, SERVING = "llama-2-70b", "vllm-0.2"


def score(folder: Path, options: Options, progress: Say) -> list[Row]:
    """Prompt and token time of every point; one run a point."""
    table = pd.read_csv(folder / NEEDS[0])
    whole = table.prompt_ms + table.token_ms * table.token_size
    table = table[table.hardware.isin(ACCELERATORS) & (table.e2e_ms < 1.25 * whole)]  # above: memory was short
    progress(f"{len(table)} points")
    return [row for point in table.itertuples() for row in _rows(point) if options.chosen(row.run)]


def _rows(point: Any) -> list[Row]:
    name, batch, prompt = ACCELERATORS[point.hardware], point.batch_size, point.prompt_size
    cost = _cost(name, point.tensor_parallel)
    run = f"{name} tp{point.tensor_parallel} {batch} x {prompt}+{point.token_size}"
    half = batch * (prompt + point.token_size // 2)
    times = {
        "prompt": (point.prompt_ms, cost.affine(prompt_plan(batch, prompt)).first),
        "token": (point.token_ms, cost.affine(decode_plan(batch, half)).first),
    }
    return [
        Row(
            run, MODEL, name, point.tensor_parallel, f"{batch}x{prompt}", metric, measured / 1e3, predicted, "in_sample"
        )
        for metric, (measured, predicted) in times.items()
    ]


@cache
def _cost(accelerator: str, tp: int) -> CostModel:
    parts = {"model": MODEL, "accelerator": accelerator, "serving": SERVING}
    model, device, serving = (instantiate(group_node(group, name), group) for group, name in parts.items())
    return cost_model(Deployment("splitwise", "generate", model, device, serving, "fp16", tp=tp))

"""Runs of vLLM under load: stages of Poisson arrivals, prompts that repeat; mean, p90 and p99 of what clients saw.

Three modes. effective: 100 distinct prompts are cycled, so that after the first hundred almost the whole prompt is in
the prefix cache: what the load generator did. requested: only the system prompts are shared, what it was asked to do
and what other simulators were given. held_out: as effective, with the coefficients of the engine fitted to the runs of
all other models.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from airi_sim.core.errors import BadInput
from airi_sim.core.types import Item, Request
from airi_sim.engine.backends import SimBackend
from airi_sim.hardware.deployment import Deployment
from airi_sim.hardware.serving import Serving
from airi_sim.workbench.build import sized_pools
from airi_sim.workbench.fidelity.edges import Stage, fitted
from airi_sim.workbench.fidelity.names import accelerator_name, model_node
from airi_sim.workbench.fidelity.rows import Options, Row, Say
from airi_sim.workbench.fidelity.simulate import Times, setting, simulate

NEEDS = ("fidelity/sim2real_experiments.csv",)
METRICS = ("e2e_mean", "e2e_p90", "e2e_p99", "ttft_mean", "ttft_p90", "itl_mean", "itl_mean_client_tokens")
SERVING = "vllm"
PROMPTS, SHARING = 100, 10
IDLE_S = 5.5
"""Between two stages; 4 to 7 seconds were seen."""
BLOCK = 16


@dataclass(frozen=True)
class Experiment:
    """One run: its summary line, a line for each stage, and the requests where they were recorded."""

    name: str
    summary: Mapping[str, Any]
    stages: tuple[Mapping[str, Any], ...]
    requests: pd.DataFrame | None

    @property
    def overloaded(self) -> bool:
        """Most requests timed out, so that what is left says little."""
        return "OVERLOADED" in str(self.summary["note"])

    @property
    def blocks(self) -> int:
        """KV blocks of the accelerators, as the engine printed them or estimated from the same engine."""
        known = self.summary["kv_blocks_gpu"]
        return int(known if known == known else self.summary["kv_blocks_gpu_est"])


def score(folder: Path, options: Options, progress: Say) -> list[Row]:
    """Every run in every mode of `options`; several at once, as runs know nothing of each other."""
    everything = experiments(folder)
    runs = [run for run in everything if options.chosen(run.name) and not run.overloaded]
    tasks = [(run, mode, serving_of(run, mode, everything, folder, options)) for mode in options.modes for run in runs]
    progress(f"{len(runs)} runs in {len(options.modes)} modes")
    for run in everything:
        if run.overloaded and options.chosen(run.name):
            progress(f"{run.name} is left out: most of its requests timed out, what is known of the others says little")
    scored = partial(_scored, folder=folder, options=options)
    if options.workers == 1:
        return [row for task in tasks for row in scored(task)]
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        return [row for rows in pool.map(scored, tasks) for row in rows]


def serving_of(
    run: Experiment, mode: str, everything: list[Experiment], folder: Path, options: Options
) -> dict[str, Any] | str:
    """The engine of a run: that of conf, or, held out, with coefficients fitted to the runs of all other models."""
    if mode != "held_out":
        return SERVING
    others = [one for one in everything if one.summary["model"] != run.summary["model"]]
    return _without_model(others, folder, options.config)


def experiments(folder: Path) -> list[Experiment]:
    """All runs of the file."""
    table = pd.read_csv(folder / NEEDS[0])
    return [_experiment(str(name), group, folder) for name, group in table.groupby("exp", sort=False)]


def _experiment(name: str, group: pd.DataFrame, folder: Path) -> Experiment:
    summary: dict[str, Any] = {str(key): value for key, value in group[group.stage == -1].iloc[0].items()}
    lines = group[group.stage >= 0].sort_values("stage").to_dict("records")
    stages = tuple({str(key): value for key, value in line.items()} for line in lines)
    trace = folder / "fidelity" / str(summary["request_trace"])
    return Experiment(name, summary, stages, pd.read_parquet(trace) if trace.is_file() else None)


def _scored(task: tuple[Experiment, str, Any], folder: Path, options: Options) -> list[Row]:
    run, mode, serving = task
    summary = run.summary
    seeds = options.seeds if mode == "effective" else 1  # what is compared with it need not be as exact
    try:
        config = setting(config_of(run, folder, options.config), serving=serving)
        predicted = figures(run, config, "requested" if mode == "requested" else "effective", seeds)
    except BadInput as problem:
        print(f"{run.name}: {problem}", file=sys.stderr)
        predicted = dict.fromkeys(METRICS, float("nan"))
    accelerator, tp = accelerator_name(summary["gpu"]), int(summary["tp"])
    return [
        Row(
            run.name, summary["model"], accelerator, tp, summary["workload"], metric,
            measured(summary, metric), predicted[metric], mode,
        )
        for metric in METRICS
    ]  # fmt: skip


def measured(line: Mapping[str, Any], metric: str) -> float:
    """Seconds. Time between tokens is per token that the server sent; clients tokenise the text again."""
    column = {"itl_mean": "itl_mean_server_tokens", "itl_mean_client_tokens": "itl_mean"}.get(metric, metric)
    return float(line[f"actual__{column}"]) / 1e3


def config_of(run: Experiment, folder: Path, base: Mapping[str, Any]) -> dict[str, Any]:
    """The engine of a run: its model, accelerators, limits and memory."""
    summary = run.summary
    return setting(
        base,
        model=model_node(summary["model"], folder),
        accelerator=accelerator_name(summary["gpu"]),
        serving=SERVING,
        precision=str(summary["precision"]).lower(),
        **{
            "pool.tp": int(summary["tp"]),
            "pool.replicas": int(summary["dp"]),
            "server.max_num_seqs": int(summary["max_num_seqs"]),
            "server.max_num_batched_tokens": int(summary["max_num_batched_tokens"]),
            "server.block_size": int(summary["block_size"]),
            "server.kv_blocks": run.blocks,
        },
    )


def _without_model(others: list[Experiment], folder: Path, base: Mapping[str, Any]) -> dict[str, Any]:
    """The config node of the engine as fitted to other runs."""
    serving = fitted([stage for run in others for stage in stages_of(run, folder, base)])
    return {"_target_": f"{Serving.__module__}.{Serving.__name__}", **asdict(serving)}


def stages_of(run: Experiment, folder: Path, base: Mapping[str, Any]) -> list[Stage]:
    """What a run says about its engine; nothing if it was overloaded."""
    if run.overloaded:
        return []
    (pool,) = sized_pools(config_of(run, folder, base), BLOCK, SimBackend())
    return [_stage(line, pool.deployment) for line in run.stages]


def _stage(line: Mapping[str, Any], deployment: Deployment) -> Stage:
    tokens = line["prompt_tokens_mean"]
    return Stage(
        deployment,
        rate=line["rate_rps"],
        tokens=tokens,
        fresh=tokens - (tokens - 1) // BLOCK * BLOCK,
        common=line["system_prompt_tokens"] // BLOCK * BLOCK,
        output=line["output_tokens_server"],
        ttft=measured(line, "ttft_mean"),
        itl=measured(line, "itl_mean"),
        e2e=measured(line, "e2e_mean"),
    )


def figures(run: Experiment, config: Mapping[str, Any], prefixes: str, seeds: int) -> dict[str, float]:
    """Predictions by metric, averaged over seeds where arrivals are drawn (where they were recorded there is one)."""
    drawn = range(seeds if run.requests is None else 1)
    found = [_figures(simulate(config, list(items(run, prefixes, seed)), BLOCK), run) for seed in drawn]
    return {metric: float(np.mean([one[metric] for one in found])) for metric in METRICS}


def _figures(times: Times, run: Experiment) -> dict[str, float]:
    e2e, ttft, client = times.e2e, times.ttft, run.summary["output_tokens_client_mean"]
    return {
        "e2e_mean": e2e.mean(),
        "e2e_p90": np.percentile(e2e, 90),
        "e2e_p99": np.percentile(e2e, 99),
        "ttft_mean": ttft.mean(),
        "ttft_p90": np.percentile(ttft, 90),
        "itl_mean": times.tpot.mean(),
        "itl_mean_client_tokens": (e2e - ttft).mean() / (client - 1),
    }


def items(run: Experiment, prefixes: str, seed: int) -> Iterable[Item]:
    """The requests of a run: as recorded, or drawn."""
    if run.requests is not None:
        columns = run.requests[["arrival_us", "input_tokens", "output_tokens_server"]].to_numpy()
        lines = [(at / 1e6, tokens, output) for at, tokens, output in columns.tolist()]
    else:
        lines = list(_drawn(run, seed))
    system = int(run.summary["system_prompt_tokens"])
    for i, (at, tokens, output) in enumerate(lines):
        prefix = _prefix(i, int(tokens), system, prefixes)
        yield Item(Request(i, at, int(tokens), prefix=prefix), int(output))


def _drawn(run: Experiment, seed: int) -> Iterable[tuple[float, int, int]]:
    """Exponential gaps; every stage has exactly rate x duration requests, and begins after a pause."""
    rng = np.random.default_rng([seed, *run.name.encode()])
    start = 0.0
    for stage in run.stages:
        gaps = rng.exponential(1 / stage["rate_rps"], int(stage["n_requests"]))
        arrivals = start + np.cumsum(gaps)
        tokens, output = round(stage["prompt_tokens_mean"]), int(stage["output_tokens_server"])
        yield from ((at, tokens, output) for at in arrivals.tolist())
        start = float(arrivals[-1]) + IDLE_S


def _prefix(i: int, tokens: int, system: int, prefixes: str) -> tuple[int, ...]:
    """Ids of the blocks of prompt `i`: the system prompt of its group, then its own."""
    shared = system // BLOCK
    group, own = i % PROMPTS // SHARING, i % PROMPTS if prefixes == "effective" else i
    rest = range(tokens // BLOCK + 1 - shared)
    return (*(group * shared + k for k in range(shared)), *((1 << 20) + (own << 10) + k for k in rest))

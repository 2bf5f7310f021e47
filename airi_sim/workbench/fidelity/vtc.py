"""Request logs of an A10G that serves Llama-2-7B with LightLLM's router (the VTC artifact), FCFS and VTC.

Calibrated on the first 500 requests of one run, FCFS overload; the seven other runs are scored. How the engine works is
read off those requests too (docs/validation.md): prompts alone in a pass, a token more than logged (the tokenizer's
first), at most 3,072 tokens together, ten passes of decodes between two of prompts, and 10,000 KV tokens of which 64
belong to the two adapters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airi_sim.core.protocols import CostModel
from airi_sim.core.types import Item, Request
from airi_sim.hardware.choose import cost_model
from airi_sim.hardware.deployment import Deployment
from airi_sim.workbench.fidelity.plans import decode_plan, prompt_plan
from airi_sim.workbench.fidelity.rows import Options, Row, Say
from airi_sim.workbench.fidelity.simulate import setting, simulate
from airi_sim.workbench.objects import instantiate
from airi_sim.workbench.plugins import group_node

Floats = NDArray[np.float64]

NEEDS = ("vtc/FCFS_overload.jsonl",)
CALIBRATED_ON, FIRST = "FCFS_overload", 500
MODEL, ACCELERATOR, SERVING = "llama-2-7b", "a10g", "lightllm"
KERNELS = f"serving.per_accelerator.{ACCELERATOR}"
SERVER = {
    "max_num_seqs": 1000, "max_num_batched_tokens": 3072, "block_size": 1, "kv_blocks": 9936, "prefix_caching": False,
    "chunked_prefill": False,
}  # fmt: skip
EXTRA = 1
"""Tokens of a prompt beside those logged."""


@dataclass(frozen=True)
class Recording:
    """One run; columns over its requests, in order of arrival."""

    name: str
    tenants: tuple[str, ...]
    arrival: Floats
    first: Floats
    finish: Floats
    prompt: NDArray[np.int64]
    output: NDArray[np.int64]
    total_s: float

    @property
    def items(self) -> list[Item]:
        """The same requests; the engine was told how many tokens to emit."""
        rows = zip(self.arrival.tolist(), self.prompt.tolist(), self.output.tolist(), self.tenants, strict=True)
        return [Item(Request(i, at, n, out, tenant=who), out) for i, (at, n, out, who) in enumerate(rows)]


def score(folder: Path, options: Options, progress: Say) -> list[Row]:
    """Total time and mean time to first token of the runs that were not calibrated on. Requests are all alike, so these
    two hardly depend on the order of service; the mean of each tenant does (ttft_tenant)."""
    fitted = calibrated(recording(folder / NEEDS[0]), options.config)
    names = sorted(path.stem for path in (folder / "vtc").glob("*.jsonl"))
    rows = []
    for name in names:
        if name != CALIBRATED_ON and options.chosen(name):
            progress(name)
            rows += _rows(recording(folder / "vtc" / f"{name}.jsonl"), fitted)
    return rows


def recording(path: Path) -> Recording:
    """A run from its file: one JSON object."""
    result = json.loads(path.read_text(encoding="utf-8"))["result"]
    rows = sorted(result["responses"], key=lambda row: row["req_time"])
    column = {name: np.array([row[name] for row in rows]) for name in rows[0] if name != "adapter_dir"}
    arrival = column["req_time"]
    return Recording(
        path.stem,
        tuple(row["adapter_dir"] for row in rows),
        arrival,
        arrival + column["first_token_latency"],
        arrival + column["request_latency"],
        column["prompt_len"].astype(np.int64) + EXTRA,
        column["output_len"].astype(np.int64),
        float(result["total_time"]),
    )


def engine(base: Mapping[str, Any], queue: str = "fcfs") -> dict[str, Any]:
    """The engine of these runs with the coefficients of conf."""
    made = setting(base, model=MODEL, accelerator=ACCELERATOR, serving=SERVING, precision="fp16", pools=None)
    made = setting(made, **{f"server.{name}": value for name, value in SERVER.items()}, **{"pool.replicas": 1})
    chosen = {"batcher": "lightllm", "queue": queue}
    return setting(made, **{f"policy.{kind}": group_node(f"policy/{kind}", name) for kind, name in chosen.items()})


def calibrated(log: Recording, base: Mapping[str, Any]) -> dict[str, Any]:
    """The engine with the four coefficients that the first requests of a run show: how fast its kernels read KV (e_kv)
    and multiply (e_c) on the card, and what the host takes for a pass (step_s) and more for one with prompts
    (prompt_s)."""
    from scipy.optimize import brentq

    seen = observed(log)
    tokens, context = int(log.prompt[0]), 20 * int(log.prompt[0] + log.output[0] // 2)
    still = {"serving.step_s": 0.0, "serving.prompt_s": 0.0}
    config = setting(engine(base), **still, **{f"{KERNELS}.e_kv": 1.0})
    per_token = (_decode(config, context + 1000) - _decode(config, context)) / 1000
    config = setting(config, **{f"{KERNELS}.e_kv": per_token / seen.context_s})

    def apart(e_c: float) -> float:
        faster = setting(config, **{f"{KERNELS}.e_c": e_c})
        return (_prompts(faster, 11, tokens) - _prompts(faster, 1, tokens)) / 10 - seen.prompt_token_s * tokens

    config = setting(config, **{f"{KERNELS}.e_c": float(brentq(apart, 0.1, 1.0, xtol=1e-4))})
    step_s = seen.decode_s + seen.context_s * context - _decode(config, context)
    prompt_s = seen.prompt_s + seen.prompt_token_s * tokens - _prompts(config, 1, tokens) - step_s
    return setting(config, **{"serving.step_s": step_s, "serving.prompt_s": prompt_s})


def _decode(config: Mapping[str, Any], context: int) -> float:
    """Seconds of a decode pass of twenty sequences."""
    return _cost(config).affine(decode_plan(20, context)).first


def _prompts(config: Mapping[str, Any], prompts: int, tokens: int) -> float:
    """Seconds of a pass of equal prompts."""
    return _cost(config).affine(prompt_plan(prompts, tokens)).first


def _cost(config: Mapping[str, Any]) -> CostModel:
    model, device, serving = (instantiate(config[part], part) for part in ("model", "accelerator", "serving"))
    return cost_model(Deployment("vtc", "generate", model, device, serving, config["precision"]))


@dataclass(frozen=True)
class Observed:
    """Seconds of a decode pass, per context token in it, of a pass of prompts, and per token of them."""

    decode_s: float
    context_s: float
    prompt_s: float
    prompt_token_s: float


def observed(log: Recording, first: int = FIRST) -> Observed:
    """Two kinds of equations, in the four unknowns, from when the first requests got tokens and were over.

    Of each request: the passes of decodes it took part in, with the contexts of all who were there, and the passes of
    prompts in between, fill the time from its first token to its last. And where a request is over and a pass of
    prompts begins at once, the first tokens of that pass come just after. Least squares on relative errors, robust.
    """
    from scipy.optimize import lsq_linear

    some = np.argsort(log.first, kind="stable")[:first]
    begin, end = log.first[some], log.finish[some]
    held = log.prompt[some].astype(float), log.output[some].astype(float)
    starts = np.flatnonzero(np.diff(begin, prepend=-np.inf) > TOGETHER_S)
    passes = begin[starts], np.add.reduceat(held[0], starts)
    lives = _lives(begin, end, held, passes)
    guess = np.linalg.lstsq(lives, np.ones(len(lives)), rcond=None)[0]
    rows = np.vstack([lives, _beginnings(end, passes, guess)])
    unknown = np.asarray(guess, dtype=float)
    for _ in range(20):
        off: Floats = rows @ unknown - 1
        weight = 1 / np.sqrt(1 + (off / 0.02) ** 2)
        unknown = lsq_linear(rows * weight[:, None], weight, bounds=(0, np.inf)).x
    return Observed(*unknown.tolist())


TOGETHER_S = 0.05
"""First tokens closer than this came from one pass."""


def _lives(begin: Floats, end: Floats, held: tuple[Floats, Floats], passes: tuple[Floats, Floats]) -> Floats:
    """Equations of the requests that were over before the last pass of prompts, divided by their length."""
    prompt, output = held
    rows = []
    for i in np.flatnonzero(end < passes[0][-1]):
        low, high = np.maximum(begin, begin[i]), np.minimum(end, end[i])
        there = high > low
        middle = ((low + high) / 2 - begin)[there] / (end - begin)[there]
        context = prompt[there] + output[there] * middle
        mean_context = float(np.sum((high - low)[there] * context)) / (end[i] - begin[i])
        inside = (passes[0] > begin[i] + TOGETHER_S) & (passes[0] < end[i])
        decodes = output[i] - 1
        row = [decodes, decodes * mean_context, inside.sum(), passes[1][inside].sum()]
        rows.append(np.array(row) / (end[i] - begin[i]))
    return np.array(rows)


def _beginnings(end: Floats, passes: tuple[Floats, Floats], guess: Any) -> Floats:
    """Equations of passes of prompts that began when somebody was over: what they are expected to take tells them from
    those that waited for decodes."""
    over = np.sort(end)
    last = over[np.maximum(0, np.searchsorted(over, passes[0]) - 1)]
    took = passes[0] - last
    expected = guess[2] + guess[3] * passes[1]
    at_once = (last < passes[0]) & (np.abs(took / expected - 1) < 0.25)
    rows = np.column_stack([np.zeros((len(took), 2)), np.ones(len(took)), passes[1]])[at_once]
    return np.asarray(rows / took[at_once][:, None])


def _rows(log: Recording, config: Mapping[str, Any]) -> list[Row]:
    queue = "vtc" if log.name.startswith("VTC") else "fcfs"
    times = simulate({**config, "policy": engine(config, queue)["policy"]}, log.items)
    seen, ttft = log.first - log.arrival, times.ttft
    figures = [
        ("total_time", log.total_s, float(times.finish.max())),
        ("ttft_mean", float(seen.mean()), float(ttft.mean())),
    ]
    for tenant in sorted(set(log.tenants)):
        mine = np.array([who == tenant for who in log.tenants])
        figures.append(("ttft_tenant", float(seen[mine].mean()), float(ttft[mine].mean())))
    workload = log.name.partition("_")[2]
    return [Row(log.name, MODEL, ACCELERATOR, 1, workload, *figure) for figure in figures]

"""What the tests of the backend share: small models, a script, and a mini scheduler that supplies rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from airi_sim.core.types import Call, Job, Outcome, Plan, Request, Row
from airi_sim.hardware.deployment import Deployment
from airi_sim.models.layers import Attention, LayerKind, Mlp
from airi_sim.models.spec import ModelSpec
from real_backend.executor import TorchExecutor


def llama(name: str = "llama", **changes: Any) -> ModelSpec:
    """A small Llama, or one with other fields of its attention, its MLP or itself."""
    attention = {"heads": 4, "kv_heads": 2, "head_dim": 16} | _taken(Attention, changes)
    layer = LayerKind(changes.pop("layers", 2), Attention(**attention), Mlp(**{"ffn": 96} | _taken(Mlp, changes)), 128)
    return ModelSpec(name, kinds=(layer,), **{"hidden": 64, "vocab": 128, "max_len": 256} | changes)


def _taken(kind: type, changes: dict[str, Any]) -> dict[str, Any]:
    return {field.name: changes.pop(field.name) for field in fields(kind) if field.name in changes}


LLAMA = llama()
QWEN2 = llama("qwen2", qkv_bias=True, tied=True, rope_theta=1e6, rms_eps=1e-6)
QWEN3 = llama("qwen3", qk_norm="head", head_dim=32, tied=True, rms_eps=1e-6)
BIASED = llama("biased", qkv_bias=True, out_bias=True, kv_heads=4)
SPECS = (LLAMA, QWEN2, QWEN3, BIASED)

POOL = Deployment("default", "generate", LLAMA, block_size=4, kv_blocks=64, max_num_seqs=8, max_num_batched_tokens=64)


def job(index: int, tokens: int, **call: Any) -> Job:
    """The only job of request `index`."""
    return Job(Request(index, 0.0, tokens), Call(tokens=tokens, **call), 0, 0.0)


class Fixed:
    """A script: `lengths[request]` output tokens (default 5), prompts from the id of the job."""

    def __init__(self, lengths: Mapping[int, int] | None = None) -> None:
        self.lengths = dict(lengths or {})

    def output_tokens(self, job: Job) -> int:
        return self.lengths.get(job.request, 5)

    def prompt(self, job: Job, vocabulary: int) -> list[int]:
        return np.random.default_rng(job.id).integers(vocabulary, size=job.prompt).tolist()


class Ticks:
    """A clock that advances by one second a mark."""

    def __init__(self) -> None:
        self.now = 0.0

    def mark(self) -> float:
        self.now += 1.0
        return self.now

    def seconds(self, first: float, last: float) -> float:
        return last - first


def described(rows: Sequence[Row], now: float = 0.0) -> Plan:
    """The plan of some rows, with the numbers that a TokenServer writes."""
    decodes = [row.start for row in rows if row.start >= row.job.tokens]
    chunks = [(row.job, row.start, row.tokens) for row in rows if row.start < row.job.tokens]
    plan = Plan(
        0,
        now,
        [(job, tokens) for job, _, tokens in chunks],
        [job for job, start, tokens in chunks if start + tokens == job.tokens],
        sequences=len(decodes),
        context=sum(decodes),
        longest=max(decodes, default=0),
        prefill_tokens=sum(tokens for _, _, tokens in chunks),
        prefill_attention=sum(tokens * (2 * start + tokens) for _, start, tokens in chunks),
        prefill_context=sum(start + tokens for _, start, tokens in chunks),
    )
    plan.rows = list(rows)
    return plan


@dataclass
class Live:
    """A job in the mini scheduler: `done` tokens in the cache, `out` generated."""

    job: Job
    done: int = 0
    out: int = 0
    table: list[int] = field(default_factory=list)

    @property
    def left(self) -> int:
        return self.job.prompt + self.out - self.done


class Mini:
    """Composes passes by hand: first come first served, `budget` tokens a pass, decodes and chunks mixed."""

    def __init__(self, executor: TorchExecutor, pool: Deployment = POOL) -> None:
        self.executor = executor
        self.size = pool.block_size
        self.free = list(range(1, pool.kv_blocks + 1))
        self.live: dict[int, Live] = {}
        self.passes = 0
        self.now = 0.0

    def admit(self, jobs: Iterable[Job]) -> None:
        self.live |= {job.id: Live(job) for job in jobs}

    def preempt(self, job: Job) -> None:
        """Its memory is lost; it will be processed from its first token again."""
        live = self.live[job.id]
        self.free += live.table
        live.table, live.done = [], 0
        job.tokens = job.prompt + live.out

    def step(self, budget: int = 1 << 30) -> Outcome:
        rows = []
        for live in self.live.values():
            tokens = min(live.left, budget)
            if tokens:
                rows.append(self._row(live, tokens))
                budget -= tokens
        return self.run(rows)

    def run(self, rows: Sequence[Row]) -> Outcome:
        plan = described(rows, self.now)
        end = self.executor.start(plan, self.now)
        outcome = self.executor.finish(plan, end)
        self.now = end
        self.passes += 1
        for row in rows:
            live = self.live[row.job.id]
            live.done += row.tokens
            live.out += live.left == 0
        for stopped in outcome.stopped:
            self.free += self.live.pop(stopped.id).table
        return outcome

    def drain(self, budget: int = 1 << 30) -> None:
        while self.live:
            self.step(budget)

    def _row(self, live: Live, tokens: int) -> Row:
        while len(live.table) * self.size < live.done + tokens:
            live.table.append(self.free.pop(0))
        return Row(live.job, live.done, tokens, live.table)

"""Made-up logs: a toy batcher whose token times are known one by one, and run folders made of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airi_sim.core.log import TABLES
from airi_sim.results.metrics import summarise, write_summary
from airi_sim.results.run import Run, load
from airi_sim.results.tables import write_tables

Rows = dict[str, list[tuple[Any, ...]]]


class Toy:
    """Servers that decode in lockstep and log as the runtime does; `tokens` holds every token time, job by job.

    Jobs are preempted at random (and emit a token when they rejoin), or set aside and resumed (and emit none then).
    """

    def __init__(self, seed: int, requests: int = 30, servers: int = 2, slow: float = 1.0) -> None:
        self.draw = random.Random(seed)
        self.rows: Rows = {name: [] for name in TABLES}
        self.tokens: dict[int, list[float]] = {}
        self.slow = slow
        for server in range(servers):
            self._serve(f"default/{server}", list(range(server, requests, servers)))

    def _serve(self, server: str, ids: list[int]) -> None:
        draw, now, counter = self.draw, 0.0, 0
        waiting = [(i, draw.randint(1, 20)) for i in ids]
        running: dict[int, dict[str, Any]] = {}
        while waiting or running:
            admitted = [waiting.pop(0) for _ in range(min(len(waiting), 4 - len(running), draw.randint(0, 2)))]
            passes = 1 if admitted else draw.randint(1, 6)
            if running:
                passes = min(passes, min(job["left"] for job in running.values()))
            elif not admitted:
                continue
            first, step = self.slow * draw.uniform(0.01, 0.02), draw.choice([0.0, 1e-4, 1e-3])
            ends = [now + first * (i + 1) + step * i * (i + 1) / 2 for i in range(passes if running else 1)]
            prompts = 10 * len(admitted)
            row = (
                server,
                "pass",
                now,
                ends[-1],
                len(ends),
                len(running),
                prompts,
                0,
                len(running),
                len(waiting),
                first,
                0,
            )
            self.rows["plans"].append(row)
            order = len(self.rows["decisions"])
            self.rows["decisions"].append((order, server, "FCFS", len(admitted), str(len(ends)), counter))
            start, now = now, ends[-1]
            if running:
                counter += len(ends)
            for i, job in list(running.items()):
                self.tokens[i] += ends
                job["left"] -= len(ends)
                if job["left"] == 0 or draw.random() < 0.1:
                    self._leave(server, running, i, counter, now, waiting)
            for i, left in admitted:
                self._join(server, running, i, left, counter, start, now)

    def _join(self, server: str, running: Any, i: int, left: int, counter: int, start: float, now: float) -> None:
        emitted = i not in self.tokens or self.draw.random() < 0.5
        times = self.tokens.setdefault(i, [])
        times += [now] * emitted
        running[i] = {"left": left - emitted, "first": counter, "joined": now, "emitted": emitted}
        self.started = getattr(self, "started", {})
        self.started.setdefault(i, start)
        if running[i]["left"] == 0:
            self._leave(server, running, i, counter, now, [])

    def _leave(self, server: str, running: Any, i: int, counter: int, now: float, waiting: list[Any]) -> None:
        job = running.pop(i)
        self.rows["spans"].append((server, 0, i * 1000, job["first"], counter, job["joined"], job["emitted"]))
        if job["left"]:
            waiting.append((i, job["left"]))
            return
        times, tenant = self.tokens[i], ("ann", "bob", "cy")[i % 3]
        self.rows["jobs"].append(
            (i * 1000, i, "generate", "m", "default", server, 0.0, self.started[i], times[0], now, 10, len(times), 2, 0,
             "finished"))  # fmt: skip
        self.rows["requests"].append(
            (i, tenant, "", "chat", "m", 0.0, times[0], now, 10, len(times), 2, "finished", ""))  # fmt: skip


@pytest.fixture
def rows() -> Rows:
    """The tables of a small run."""
    return Toy(0).rows


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    """Makes a run folder of a toy run."""

    def make(name: str = "run", source: str = "sim", seed: int = 0, slow: float = 1.0, toy: Rows | None = None) -> Run:
        tables = Toy(seed, slow=slow).rows if toy is None else toy
        told = {
            "version": "0",
            "git": "",
            "seed": seed,
            "source": source,
            "calibrated": False,
            "warnings": ["mind <this>"],
        }
        write_tables(tables, tmp_path / name, source)
        engine = {"wall_s": 2.0, "cpu_s": 0.5}
        write_summary(tmp_path / name, summarise(tables, engine=engine, provenance=told, slo={"ttft_s": 0.5}))
        (tmp_path / name / "config.yaml").write_text("seed: 0\n")
        return load(tmp_path / name)

    return make

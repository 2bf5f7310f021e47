"""Random measured runs in which things go wrong: nothing leaks, every request is accounted for, nothing hangs.

`AIRI_RANDOM_RUNS=100` makes a hundred of them (`AIRI_RANDOM_FIRST` is the first seed).
"""

from __future__ import annotations

import faulthandler
import gc
import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from itertools import pairwise
from typing import Any

import pytest

from airi_sim.core.types import Plan
from airi_sim.workbench.build import World, build, build_backend
from airi_sim.workbench.config import load_config, plain
from airi_sim.workbench.leaks import Leak, check_leaks
from airi_sim.workbench.paths import options
from airi_sim.workbench.plugins import group_node

pytestmark = pytest.mark.real
RUNS = int(os.environ.get("AIRI_RANDOM_RUNS", "25"))
FIRST = int(os.environ.get("AIRI_RANDOM_FIRST", "0"))
HANGS_S = 60.0
HAPPENS = ("finished", "failed", "cancelled", "preempt", "swap out", "swap in", "copy", "cut off", "services")
"""What must have happened somewhere in all runs together, else they prove little."""
STATUSES = {"finished", "failed", "cancelled", "rejected"}
BLOCK_BYTES = 2 * 16 * 4
"""Of keys and values of a token, in the only layer of the model."""
ALIKE = {"min": 48, "max": 48}
"""Prompts that are all prefix: the whole of one is cached when it comes again."""
REASONS = ("cancelled", "timed out")
BATCHERS = [*options("policy/batcher"), *["chunked_prefill"] * 10]


@contextmanager
def never_hangs() -> Iterator[None]:
    """A run that hangs ends the process, and says where it hung."""
    faulthandler.dump_traceback_later(HANGS_S, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


class Uneven:
    """A clock by which parts of a pass take from 10 us to 1 ms, whatever they took: other meetings than a real clock
    brings about, and the same ones every time."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.now = 0.0

    def mark(self) -> float:
        self.now += self.draw.choice([1e-5, 1e-4, 3e-4, 1e-3])
        return self.now

    def seconds(self, first: float, last: float) -> float:
        return last - first


@cache
def composed() -> dict[str, Any]:
    """A model of one layer, run on the CPU."""
    shape = "hidden_size: 16, intermediate_size: 24, num_hidden_layers: 1, num_attention_heads: 2"
    more = "num_key_value_heads: 1, head_dim: 16, vocab_size: 64"
    nano = ["validate=parity", f"model.config={{{shape}, {more}}}", "backend.workers=0", "services.embed.model=tiny"]
    return plain(load_config([*nano, "services.search.service={vectors: 200, width: 256}"]))


def world(seed: int) -> tuple[World, int]:
    """A small world of any size and with any policies, in which requests are cancelled and servers die."""
    draw = random.Random(seed)
    config = deepcopy(composed())
    n, rate = draw.choice([8, 16, 30]), draw.choice([1000.0, 30000.0, 1e6])
    program = draw.choice(["chat", "chat", "chat", "rag"])
    block, chunked = draw.choice([4, 16]), draw.random() < 0.8
    config["seed"] = seed
    config["workload"] |= {
        "n": n, "rate": rate, "seed": seed,
        "input": {"kind": "uniform", **draw.choice([{"min": 1, "max": 20}, {"min": 1, "max": 90}, ALIKE])},
        "output": {"kind": "uniform", "min": 1, "max": draw.choice([4, 25])},
        "prefix": draw.choice([None, {"groups": 2, "tokens": 48, "zipf": 0.5}]),
        "program": program, "concurrency": draw.choice([None, None, None, 5]),
    }  # fmt: skip
    config["services"]["embed"]["server"] = {"max_num_seqs": 4, "max_num_batched_tokens": 256}
    config["server"] |= {
        "max_num_seqs": draw.choice([2, 8, 16]), "block_size": block, "chunked_prefill": chunked,
        "kv_blocks": (draw.choice([112, 160, 240]) + 300 * (program == "rag")) // block,
        "max_num_batched_tokens": draw.choice([24, 64, 256]) if chunked else 512,
        "prefix_caching": draw.random() < 0.6, "copy_on_write": draw.random() < 0.5,
        "swap_bytes": draw.choice([0, 4, 300, 300]) * block * BLOCK_BYTES,
    }  # fmt: skip
    config["pool"]["replicas"] = draw.choice([1, 2, 3])
    policy = config["policy"]
    for kind in ("queue", "evictor", "cache", "router", "fault"):
        policy[kind] = group_node(f"policy/{kind}", draw.choice(options(f"policy/{kind}")))
    if "least" in policy["evictor"]:
        policy["evictor"]["least"] = 20
    batcher = draw.choice(BATCHERS) if chunked else "chunked_prefill"
    policy["batcher"] = group_node("policy/batcher", batcher)
    backend: Any = build_backend(config)
    if seed % 3:
        backend.timer = Uneven(seed)
    made = build(config, backend)
    hazards(made, draw, n, n / rate + 0.04)
    return made, n


def hazards(world: World, draw: random.Random, n: int, until: float) -> None:
    """Cancellations and time-outs, and deaths of servers of every kind, most of them in the middle of a plan."""
    runtime, driver = world.runtime, world.driver
    for request in draw.sample(range(n), draw.randint(0, n // 3)):
        at = draw.uniform(0.0, until)
        driver.at(at, lambda i=request, at=at: runtime.cancel(i, at, REASONS[i % 2]))
    for _ in range(draw.choice([0, 1, 1, 3])):
        at, index = draw.uniform(0.0, until), draw.randrange(len(runtime.servers))
        driver.at(at, lambda i=index, at=at: runtime.server_down(i, at))
        if draw.random() < 0.95:
            back = at + draw.choice([0.0, 1e-4, 0.02])
            driver.at(back, lambda i=index, at=back: runtime.server_up(i, at))


def run(seed: int) -> Counter[str]:
    """One run, its books checked; what happened in it."""
    made, n = world(seed)
    made.driver.run(iter(made.workload))
    check_leaks(made)
    rows = made.log.requests
    assert sorted(row[0] for row in rows) == list(range(n)), "each request once"
    statuses = Counter(str(row[11]) for row in rows)
    assert statuses.keys() <= STATUSES
    assert made.runtime.counts == {"offered": n, "unfinished": 0} | {name: statuses[name] for name in STATUSES}
    jobs = Counter(row[1] for row in made.log.jobs)
    assert set(jobs) <= set(range(n))
    check_tables(made)
    words = Counter(str(row[4]).rstrip(" 0123456789") for row in made.log.decisions)
    cut_off, services = sum(row[4] == 0 for row in made.log.plans), sum(row[2] != "generate" for row in made.log.jobs)
    return statuses + words + Counter({"cut off": cut_off, "services": services})


def check_tables(made: World) -> None:
    """Finished jobs have all their tokens; a server does one plan at a time."""
    wanted = {item.request.id: item for item in made.workload}
    for row in made.log.jobs:
        if row[14] == "finished" and row[2] == "generate":
            assert row[11] == wanted[row[1]].output_tokens
    for name in {row[0] for row in made.log.plans}:
        spans = sorted((row[2], row[3]) for row in made.log.plans if row[0] == name)
        assert all(end <= start + 1e-12 for (_, end), (start, _) in pairwise(spans)), name


def test_nothing_leaks_and_every_request_is_accounted_for(capfd: pytest.CaptureFixture[str]) -> None:
    seen: Counter[str] = Counter()
    with capfd.disabled():
        for seed in range(FIRST, FIRST + RUNS):
            with never_hangs():
                seen += run(seed)
    gc.unfreeze()  # not after each run: collecting what others left takes longer than a run
    assert set(HAPPENS) <= seen.keys()


def test_a_leak_is_named() -> None:
    """Else all of the above would prove nothing."""
    made, _ = world(0)
    made.driver.run(iter(made.workload))
    check_leaks(made)
    server: Any = made.runtime.servers[0]
    server.free -= 2
    server.host.keep(7000, 5, 1)
    made.backend.sequences._open[1000] = None  # type: ignore[attr-defined]
    made.driver.executors[0]._flights[Plan(0, 0.0)] = None
    with pytest.raises(Leak) as caught:
        check_leaks(made)
    made.backend.close()  # type: ignore[attr-defined]
    for text in ("default/0 has 2 KV blocks that nobody", "1 KV blocks on the host of jobs [7000]"):
        assert text in str(caught.value)
    assert "the backend has 1 token sequences; server 0 has a pass plan in flight." in str(caught.value)

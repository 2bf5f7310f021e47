"""Law 3 through the workbench: with and without fast-forward the same decisions, and times within 1e-6 s.

The built-in queues, batchers and routers on a real trace, each with several others, and random small configurations
with everything that could make a run of equal passes end early.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airi_sim.core.types import Item, Job
from airi_sim.workbench.build import build
from airi_sim.workbench.config import load_config, plain
from airi_sim.workbench.paths import options
from airi_sim.workbench.plugins import group_node

QUEUES, BATCHERS, ROUTERS = (options(f"policy/{kind}") for kind in ("queue", "batcher", "router"))
TOLERANCE_S = 1e-6
WORLDS = int(os.environ.get("AIRI_WORLDS", "60"))
ON_TRACE = bool(os.environ.get("AIRI_DATA"))
TRACE = ["workload=trace", "workload.path=azure_conv", "workload.rate_scale=1.5"]
STAND_IN = ["workload=azure_like", "workload.rate=7"]  # the same statistics
SERVERS = ["model=llama-3.1-8b", "accelerator=h100-sxm", "pool.replicas=2", "server.kv_blocks=700"]
LOAD = ["server.max_num_seqs=48", "workload.tenants={heavy: 5, light: 1}"]


@dataclass
class Ran:
    """What a run decided, and when things happened."""

    decisions: str
    times: dict[int, tuple[Any, ...]]
    outcomes: list[tuple[Any, ...]]
    preemptions: int
    plans: int
    statuses: Counter[str]

    def apart(self, other: Ran) -> float:
        """The largest difference of a time, in seconds."""
        pairs = [(a, b) for job in self.times for a, b in zip(self.times[job], other.times[job], strict=True) if a != b]
        return max((abs(a - b) for a, b in pairs), default=0.0)


Faults = Sequence[tuple[float, int, float]]
Cancels = Sequence[tuple[float, int]]


def run(config: dict[str, Any], fast: bool, faults: Faults = (), cancels: Cancels = ()) -> Ran:
    """Run a config; `faults` are (when, server, seconds until it is back), `cancels` (when, request)."""
    world = build({**config, "engine": {"fast_forward": fast}})
    runtime, driver = world.runtime, world.driver
    for at, server, gone in faults:
        index = server % len(runtime.servers)
        driver.at(at, lambda i=index, t=at: runtime.server_down(i, t))
        driver.at(at + gone, lambda i=index, t=at + gone: runtime.server_up(i, t))
    for at, request in cancels:
        driver.at(at, lambda r=request, t=at: runtime.cancel(r, t))
    driver.run(with_priorities(world.workload))
    log = world.log
    return Ran(
        log.decisions_hash(),
        {row[0]: row[6:10] for row in log.jobs},
        sorted((row[0], row[5], *row[10:]) for row in log.jobs),
        sum(row[13] for row in log.jobs),
        len(log.plans),
        Counter(row[11] for row in log.requests),
    )


def with_priorities(items: Any) -> Iterator[Item]:
    """So that orders by priority differ from orders by arrival."""
    for item in items:
        item.request.priority = item.request.id % 3
        yield item


def both(config: dict[str, Any], faults: Faults = (), cancels: Cancels = ()) -> tuple[Ran, Ran]:
    """With and without fast-forward; they must be the same."""
    fast, slow = run(config, True, faults, cancels), run(config, False, faults, cancels)
    assert fast.outcomes == slow.outcomes
    assert fast.decisions == slow.decisions
    assert fast.apart(slow) <= TOLERANCE_S
    return fast, slow


@cache
def composed(*overrides: str) -> dict[str, Any]:
    return plain(load_config(overrides))


def combination(n: int, queue: str, batcher: str, router: str) -> dict[str, Any]:
    workload = [*TRACE, f"workload.limit={n}"] if ON_TRACE else [*STAND_IN, f"workload.n={n}"]
    config = deepcopy(composed(*workload, *SERVERS, *LOAD))
    for kind, name in (("queue", queue), ("batcher", batcher), ("router", router)):
        config["policy"][kind] = group_node(f"policy/{kind}", name)
    if queue == "priority_aging":
        config["policy"]["queue"]["patience"] = 5.0
    return config


def rounds(first: int, last: int) -> list[tuple[str, str, str]]:
    """In each round every policy once or more; from round to round they meet others."""
    most = max(len(QUEUES), len(BATCHERS), len(ROUTERS))
    return [
        (QUEUES[i % len(QUEUES)], BATCHERS[(i + k) % len(BATCHERS)], ROUTERS[(i + 2 * k) % len(ROUTERS)])
        for k in range(first, last)
        for i in range(most)
    ]


def test_a_round_has_every_policy_and_enough_rounds_every_pair() -> None:
    for k in range(3):
        assert [set(column) for column in zip(*rounds(k, k + 1), strict=True)] == [
            set(QUEUES), set(BATCHERS), set(ROUTERS),
        ]  # fmt: skip
    pairs = {(queue, batcher) for queue, batcher, _ in rounds(0, len(BATCHERS))}
    assert pairs == {(queue, batcher) for queue in QUEUES for batcher in BATCHERS}


@pytest.mark.parametrize(
    ("queue", "batcher", "router"),
    [
        *[pytest.param(*row, id="+".join(row)) for row in rounds(0, 1)],
        *[pytest.param(*row, marks=pytest.mark.slow, id="+".join(row)) for row in rounds(1, 4)],
    ],
)
def test_two_thousand_requests_of_the_trace(queue: str, batcher: str, router: str) -> None:
    fast, slow = both(combination(2000, queue, batcher, router))
    assert fast.statuses["finished"] >= 1990
    assert fast.plans < slow.plans
    if batcher == "chunked_prefill" and queue in ("fcfs", "vtc"):
        assert fast.preemptions > 0
        assert fast.plans < slow.plans / 5


@pytest.mark.parametrize(
    ("queue", "batcher", "router"),
    [
        pytest.param(*row, marks=() if k < 3 else pytest.mark.slow, id="+".join(row))
        for k in range(len(BATCHERS))
        for row in rounds(k, k + 1)
    ],
)
def test_every_combination_on_the_first_requests(queue: str, batcher: str, router: str) -> None:
    both(combination(150, queue, batcher, router))


class LeastKv:
    """Reads a column that moves inside a run of equal passes."""

    def route(self, job: Job, view: Any, now: float) -> int:
        used, up = view.column("kv_used_blocks", now), view.column("up", now)
        return min(range(view.n), key=lambda i: (not up[i], used[i], i))


ROUTER_NODES = [*[{"_target_": f"{__name__}.LeastKv"}] * 4, *(group_node("policy/router", name) for name in ROUTERS)]
BUCKET = {**group_node("policy/admission", "token_bucket"), "charge_output": False}
REGIMES: dict[str, dict[str, Any]] = {
    "idle": {"rate": 4.0, "seats": 64, "blocks": 2000, "output": 400},
    "seats_full": {"rate": 60.0, "seats": 5, "blocks": 2000, "output": 80},
    "memory_short": {"rate": 30.0, "seats": 40, "blocks": 60, "output": 120},
    "overload": {"rate": 400.0, "seats": 16, "blocks": 120, "output": 80},
}
PROMPT, OUTPUT = {"kind": "uniform", "min": 1, "max": 300}, {"kind": "uniform", "min": 1}
BITES: dict[str, list[Any]] = {
    "patience": [0.2, 1.0], "quantum": [4, 40], "quantum_s": [0.1], "window_s": [0.5], "limit": [3],
}  # fmt: skip
"""Arguments of queues that make a difference within a few seconds."""
CAREFUL = ("aimd", "continuous", "decode_first", "lightllm", "past_future", "size_timeout")
"""Batchers that let so few in that memory hardly ever runs short."""


@st.composite
def worlds(draw: Any, regime: str) -> tuple[dict[str, Any], Faults, Cancels]:
    """A small config of a regime, with any of the built-in policies and complications, and deaths of servers."""
    own = REGIMES[regime]
    config = deepcopy(composed("workload=poisson", "model=llama-3.1-8b", "accelerator=h100-sxm"))
    prefix = draw(st.sampled_from([None, {"groups": 3, "tokens": 160, "zipf": 0.5}]))
    config["workload"] |= {
        "rate": own["rate"], "n": 40, "input": PROMPT, "output": OUTPUT | {"max": own["output"]},
        "program": draw(st.sampled_from(["chat", "chat", "rag"])), "prefix": prefix,
        "seed": draw(st.integers(0, 2**16)), "burstiness": draw(st.sampled_from([0.3, 1.0])),
        "tenants": {"a": 3, "b": 1}, "concurrency": draw(st.sampled_from([None, None, 12])),
    }  # fmt: skip
    chunked = draw(st.booleans())
    config["server"] |= {
        "max_num_seqs": own["seats"], "kv_blocks": own["blocks"], "chunked_prefill": chunked,
        "max_num_batched_tokens": draw(st.sampled_from([64, 200, 600] if chunked else [600])),
        "prefix_caching": draw(st.booleans()), "block_size": draw(st.sampled_from([16, 16, 24])),
        "swap_bytes": draw(st.sampled_from([0, 0, 5e7, 1e9])), "copy_on_write": draw(st.booleans()),
    }  # fmt: skip
    config["view"] = {"period_s": draw(st.sampled_from([0.0, 0.0, 0.05]))}
    config["pool"]["replicas"] = draw(st.integers(1, 3))
    policy = config["policy"]
    policy["router"] = draw(st.sampled_from(ROUTER_NODES))
    for kind in ("queue", "batcher", "evictor", "cache"):
        policy[kind] = group_node(f"policy/{kind}", draw(st.sampled_from(options(f"policy/{kind}"))))
    for name in sorted(BITES.keys() & policy["queue"]):
        policy["queue"][name] = draw(st.sampled_from(BITES[name]))
    if draw(st.booleans()):
        policy["batcher"] = group_node("policy/batcher", "preemptive")
    if draw(st.booleans()):
        policy["admission"] = BUCKET | {"rate": draw(st.sampled_from([2000, 20000])), "capacity": 1000}
    deaths = st.tuples(st.floats(0.01, 3.0), st.integers(0, 4), st.floats(0.01, 0.5))
    cancels = st.tuples(st.floats(0.01, 3.0), st.integers(0, config["workload"]["n"] - 1))
    return config, draw(st.lists(deaths, max_size=2)), draw(st.lists(cancels, max_size=6))


@pytest.mark.parametrize("regime", REGIMES)
@settings(max_examples=WORLDS, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_random_small_worlds(regime: str, data: st.DataObject) -> None:
    both(*data.draw(worlds(regime)))


def test_a_job_that_is_delivered_late_does_not_show_in_a_view_of_before() -> None:
    """Regression: engines that work ahead take arrivals after the pass in flight, maybe after the next publication."""
    world = ["workload=poisson", "workload.rate=40", "workload.n=150", "view.period_s=0.05"]
    for seed in (0, 2, 3):
        both(deepcopy(composed(*world, "policy/router=p2c", "pool.replicas=2", f"seed={seed}")))


def test_who_gives_up_has_come_before_for_a_queue_that_draws_lots() -> None:
    """Regression: of a job that was looked at in the middle of a run of equal passes, and cancelled before its end, the
    queue never heard."""
    world = ["workload=poisson", "workload.rate=120", "workload.n=60", "policy/queue=random", "server.max_num_seqs=4"]
    cancels = [(0.2 + 0.03 * i, 10 + i) for i in range(40)]
    for seed in (0, 1, 2):
        both(deepcopy(composed(*world, f"seed={seed}")), cancels=cancels)


def test_a_server_that_wakes_by_itself_does_not_show_in_a_view_of_before() -> None:
    """Regression: it drafted before what was to be seen at the last tick had been published."""
    held = ["policy/queue=rpm", "policy.queue.limit=1", "policy.queue.window_s=0.5", "workload.output.mean=60"]
    seen = ["view.period_s=0.2", "policy/router=least_kv", "pool.replicas=3", "workload.rate=5", "workload.n=40"]
    for seed in (2, 3, 4):
        both(deepcopy(composed("workload=poisson", "workload.input.mean=200", *held, *seen, f"seed={seed}")))


def test_what_others_read_too_is_bounded_by_a_context_that_grows() -> None:
    """Regression: one decodes while many who wait for room elsewhere hold the prefix it shares, so that the tokens it
    need not read are all of its own. Passes that repeated were priced as if those stood still."""
    pools = "pools={pre: {role: prefill, replicas: 1}, dec: {role: decode, replicas: 1}}"
    prefix = "workload.prefix={groups: 1, tokens: 160, zipf: 0.5}"
    sizes = ["workload.rate=40", "workload.n=40", "workload.input.mean=60", "workload.output.mean=60"]
    servers = ["server.prefix_caching=true", "server.kv_blocks=60", "seed=1"]
    fast, slow = both(deepcopy(composed("workload=poisson", *sizes, *servers, pools, prefix)), [(0.5, 1, 0.3)])
    assert fast.apart(slow) < 1e-9


def test_a_process_of_the_users_wakes_at_the_moment_of_what_woke_it() -> None:
    """Regression: arrivals are no events of SimPy, so its clock stood still while they happened."""
    world = build(deepcopy(composed("workload=poisson", "workload.n=20")))
    env, learn = world.driver.env, world.driver.learn
    news, came, woke = env.event(), [], []

    def wait() -> Any:
        while True:
            yield news
            woke.append(env.now)

    def tell(item: Item) -> None:
        nonlocal news
        learn(item)
        came.append(item.request.arrival)
        news, old = env.event(), news
        old.succeed()

    env.process(wait())
    world.driver.learn = tell
    world.driver.run(iter(world.workload))
    assert woke == came and len(came) == 20


@pytest.mark.parametrize("caching", [False, True])
@pytest.mark.parametrize("batcher", BATCHERS)
def test_memory_short_really_preempts(batcher: str, caching: bool) -> None:
    """Else that regime would prove nothing."""
    config = deepcopy(composed("workload=poisson", "model=llama-3.1-8b", "accelerator=h100-sxm"))
    own = REGIMES["memory_short"]
    prefix = {"groups": 3, "tokens": 160}
    config["workload"] |= {
        "rate": own["rate"],
        "n": 80,
        "input": PROMPT,
        "output": OUTPUT | {"max": 80},
        "prefix": prefix,
    }
    config["server"] |= {"max_num_seqs": own["seats"], "kv_blocks": own["blocks"], "prefix_caching": caching}
    config["policy"]["batcher"] = group_node("policy/batcher", batcher)
    fast, _ = both(config)
    assert fast.preemptions > 5 or batcher in CAREFUL

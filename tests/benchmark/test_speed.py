"""Speed is reported, exactness is asserted: the optimisations of the hot path, on traces as long as CI allows.

`pytest tests/benchmark -s` prints the figures; no test fails for being slow.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest

from airi_sim.workbench.build import build
from airi_sim.workbench.cases import TRACES, case_of
from airi_sim.workbench.config import load_config, plain

pytestmark = pytest.mark.benchmark
NOWHERE = "data.dir=/nowhere"
VARIED = ["W1", "W1+vtc8", "W1+aging", "W3", "W1_10k_r64+p2c", "W1_10k_r64+p2c_50ms", "mooncake+cache+affinity"]


class Ran(NamedTuple):
    """A run of a case: what it decided, when requests ended, what it took."""

    world: Any
    times: dict[int, tuple[Any, Any]]
    cpu_s: float

    def report(self, what: str) -> None:
        plans, passes = len(self.world.log.plans), sum(server.passes for server in self.world.runtime.servers)
        each = self.cpu_s / len(self.times) * 1e6
        print(f"\n{what}: {self.cpu_s:.3f} CPU s, {each:.1f} us/request, {plans:,} plans, {passes:,} passes", end="")


def run(case: str, *words: str) -> Ran:
    """The case with the project's own generator, so that it is the same everywhere."""
    overrides: Sequence[str] = case_of(case, "/nowhere").overrides
    world = build(plain(load_config([*overrides, NOWHERE, *words])))
    begun = time.process_time()
    world.driver.run(iter(world.workload))
    seconds = time.process_time() - begun
    return Ran(world, {row[0]: (row[6], row[7]) for row in world.log.requests}, seconds)


@pytest.mark.parametrize("case", VARIED)
def test_fast_is_stepwise(case: str) -> None:
    fast, slow = (run(f"{case}{variant}", "workload.n=400") for variant in ("", "+stepwise"))
    assert fast.world.log.decisions_hash() == slow.world.log.decisions_hash()
    apart = max(abs(a - b) for i in fast.times for a, b in zip(fast.times[i], slow.times[i], strict=True))
    assert len(fast.times) == 400 and apart <= 1e-6
    assert len(fast.world.log.plans) < len(slow.world.log.plans)
    fast.report(case)
    slow.report(f"{case}+stepwise")


def test_a_thousand_replicas_take_no_more_decisions_for_a_request_than_sixteen() -> None:
    few, many = run("200k_r16", "workload.n=1600"), run("200k_r1000", "workload.n=1600")
    for ran, what in ((few, "16 replicas"), (many, "1,000 replicas")):
        assert ran.world.runtime.counts["finished"] == 1600
        ran.report(what)
    assert len(many.world.log.decisions) <= len(few.world.log.decisions)


def test_a_request_is_forgotten_when_it_is_over() -> None:
    """Memory follows what is in flight: nothing but the log grows with the number of requests."""
    ran = run("10k_r16+p2c", "workload.n=1500")
    world = ran.world
    held = [world.runtime.flows, world.runtime.timers, world.runtime.outside, world.runtime.handovers]
    held += [getattr(server, name) for server in world.runtime.servers for name in ("jobs", "running", "flights")]
    held += [lane.heap for executor in world.driver.executors for lane in executor.lanes]
    assert [len(what) for what in held] == [0] * len(held)
    assert len(world.driver.learn.__self__._lengths) == 0
    ran.report("16 replicas, p2c")


@pytest.mark.parametrize("name", [name for name, trace in TRACES.items() if trace.path])
def test_every_named_trace_has_a_generator_of_its_size(name: str) -> None:
    """So that the bench works for everybody: as many requests, tokens within a tenth."""
    from airi_sim.core.errors import BadInput
    from airi_sim.workload.traces import Trace

    try:
        trace = list(Trace(TRACES[name].path))
    except BadInput:
        pytest.skip(f"the trace {name} is not in the data folder")
    config = plain(load_config([*case_of(name, "/nowhere").overrides, NOWHERE]))
    generated = list(build(config).workload)
    assert len(generated) == len(trace)
    for tokens in (lambda item: item.request.tokens, lambda item: item.output_tokens):
        ours, theirs = (sum(map(tokens, items)) for items in (generated, trace))
        assert abs(ours / theirs - 1) < 0.1
    assert abs(generated[-1].request.arrival / trace[-1].request.arrival - 1) < 0.1

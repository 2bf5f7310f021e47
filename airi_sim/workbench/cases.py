"""The cases of `airi bench`: a trace with the replicas it is meant for, and variants of the policies, as overrides.

A case is written `TRACE` or `TRACE+VARIANT+...`, such as `W1+vtc8`; any trace goes with any variant. Each is the
command line of an ordinary `airi run`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from airi_sim.core.errors import BadInput, unknown
from airi_sim.workload.slices import at_hand


class Trace(NamedTuple):
    """What is run: a file of the data folder (`path`) or, without it, the generator of the overrides. `long` ones take
    minutes and are run once."""

    replicas: int
    generated: tuple[str, ...]
    path: str = ""
    long: bool = False


TRACES = {
    "W1": Trace(1, ("workload=w1",), "W1"),
    "W2": Trace(4, ("workload=w2",), "W2"),
    "W3": Trace(1, ("workload=w3",), "W3"),
    "W1_10k_r64": Trace(64, ("workload=w1", "workload.rate=512"), "W1_10k_r64"),
    "mooncake": Trace(8, ("workload=mooncake_like",), "mooncake"),
    "10k_r16": Trace(16, ("workload=w1", "workload.rate=128", "workload.n=10000")),
    "1M_r16": Trace(16, ("workload=w1", "workload.rate=128", "workload.n=1000000"), long=True),
    "200k_r16": Trace(16, ("workload=w1", "workload.rate=128", "workload.n=200000"), long=True),
    "200k_r1000": Trace(1000, ("workload=w1", "workload.rate=8000", "workload.n=200000"), long=True),
}
"""Traces by name. Those of the last rows have no file: w1 at 8 requests a second and replica."""

VARIANTS: dict[str, tuple[str, ...]] = {
    "vtc8": ("policy/queue=vtc", "workload.tenants={t0: 1, t1: 1, t2: 1, t3: 1, t4: 1, t5: 1, t6: 1, t7: 1}"),
    "aging": ("policy/queue=priority_aging", "policy.queue.patience=0.5"),
    "p2c": ("policy/router=p2c",),
    "p2c_50ms": ("policy/router=p2c", "view.period_s=0.05"),
    "jsq": ("policy/router=jsq",),
    "jsq_50ms": ("policy/router=jsq", "view.period_s=0.05"),
    "affinity": ("policy/router=prefix_affinity",),
    "cache": ("server.prefix_caching=true",),
    "direct": ("serving.request_s=0", "serving.ahead=false"),
    "stepwise": ("engine.fast_forward=false",),
}
"""What a variant changes; otherwise: round robin, FCFS, chunked prefill, no prefix cache, and an engine that has an API
path and composes the next pass while one runs (`direct`: neither)."""

POLICIES = [f"{name}+{variant}" for name in ("W1", "W2", "W3", "W1_10k_r64") for variant in ("vtc8", "aging")]
SETS: dict[str, list[str]] = {
    "quick": ["W1", "W2", "W3", "W1_10k_r64"],
    "direct": [f"{name}+direct" for name in ("W1", "W2", "W3", "W1_10k_r64")],
    "policies": [*POLICIES, "W1_10k_r64+p2c", "W1_10k_r64+p2c_50ms"],
    "cache": ["mooncake", "mooncake+cache"],
    "scale": ["10k_r16", "1M_r16", *[f"200k_{n}{v}" for v in ("", "+p2c", "+jsq") for n in ("r16", "r1000")]],
}
"""Names for several cases."""
SETS["all"] = [case for cases in SETS.values() for case in cases]


class Case(NamedTuple):
    """One case, ready to run: `source` is trace or generated, `overrides` those of `airi run`."""

    name: str
    source: str
    overrides: list[str]
    trace: Trace

    @property
    def variants(self) -> list[str]:
        """What it changes."""
        return self.name.split("+")[1:]


def chosen(names: str | Sequence[str], data_dir: str | None) -> list[Case]:
    """The cases of `bench.cases`: the name of a set, or a list of sets and cases. Raises BadInput."""
    asked = [names] if isinstance(names, str) else list(names)
    found = dict.fromkeys(case for name in asked for case in SETS.get(name, [name]))
    return [case_of(name, data_dir) for name in found]


def case_of(name: str, data_dir: str | None) -> Case:
    """The case of a name."""
    trace, *variants = name.split("+")
    if trace not in TRACES:
        raise unknown("case of bench.cases", name, [*TRACES, *SETS, "backend", "TRACE+VARIANT"])
    for variant in variants:
        if variant not in VARIANTS:
            raise BadInput(f"bench.cases: {name} has no variant '{variant}'; there are {', '.join(VARIANTS)}.")
    what = TRACES[trace]
    there = bool(what.path) and at_hand(what.path, data_dir)
    workload = ("workload=trace", f"workload.path={what.path}") if there else what.generated
    changes = [word for variant in variants for word in VARIANTS[variant]]
    words = [*workload, f"pool.replicas={what.replicas}", "server.prefix_caching=false", *changes]
    return Case(name, "trace" if there else "generated", words, what)

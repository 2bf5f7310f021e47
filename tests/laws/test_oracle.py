"""Law 3 against an independent oracle: equal decisions and times in four regimes, and liars are caught."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest

from airi_sim.core.types import FOREVER, Horizon
from airi_sim.policies import batchers
from airi_sim.policies.batchers import ChunkedPrefill, PrefillFirst, Static
from airi_sim.policies.evictors import LastIn, Lru
from airi_sim.policies.preemption import Preemptive
from airi_sim.policies.queues import Vtc
from tests.laws import oracle
from tests.laws.orders import AgingLongest, AskMeEveryPass, Longest
from tests.laws.queues import BUILT_IN
from tests.laws.worlds import Setup, workload

CONFIGURATIONS = int(os.environ.get("AIRI_ORACLE", "500"))
QUEUES: dict[str, Any] = {
    **BUILT_IN,
    "longest": Longest,
    "aging_longest": lambda: AgingLongest(patience=0.4),
    "every_pass": AskMeEveryPass,
}
BATCHERS: dict[str, Any] = {
    "chunked": ChunkedPrefill,
    "prefill_first": PrefillFirst,
    "static": Static,
    "static_of_3": lambda: Static(size=3),
    "greedy_all": batchers.GreedyAll,
    "size_timeout": lambda: batchers.SizeTimeout(size=4, timeout_s=0.3, preferred=[2]),
    "aimd": lambda: batchers.Aimd(slo_s=1.0),
    "decode_first": batchers.DecodeFirst,
    "decode_first_low": lambda: batchers.DecodeFirst(low=3),
    "prefill_cadence": lambda: batchers.PrefillCadence(passes=4),
    "slo_chunk": lambda: batchers.SloChunk(tbt_s=0.015, least=8, block_s=5e-5, pair_s=1e-7),
    "continuous": batchers.Continuous,
    "continuous_of_50": lambda: batchers.Continuous(max_output=50),
    "past_future": lambda: batchers.PastFuture(every=5),
    "preemptive": Preemptive,
    "preemptive_of_100": lambda: Preemptive(tokens=100),
}
EVICTORS: dict[str, Any] = {"last_in": LastIn, "lru": Lru}
REGIMES: dict[str, dict[str, Any]] = {
    "idle": {"rate": 1.0, "seats": 64, "blocks": 10_000},
    "seats_full": {"rate": 30.0, "seats": 6, "blocks": 10_000},
    "memory_short": {"rate": 30.0, "seats": 40, "blocks": 44},
    "overload": {"rate": 200.0, "seats": 16, "blocks": 90},
}


def configuration(seed: int, **chosen: Any) -> Setup:
    """A random small world of one of the regimes."""
    draw = random.Random(seed)
    regime = REGIMES[chosen.get("regime") or draw.choice(list(REGIMES))]
    caching = draw.random() < 0.3
    items = workload(seed, 40, regime["rate"], 300, 80, groups=3 if caching else 0)
    return Setup(
        items,
        queue=QUEUES[chosen.get("queue") or draw.choice(list(QUEUES))],
        batcher=BATCHERS[chosen.get("batcher") or draw.choice(list(BATCHERS))],
        evictor=EVICTORS[draw.choice(list(EVICTORS))],
        replicas=draw.choice([1, 1, 2]),
        seats=regime["seats"],
        blocks=regime["blocks"],
        limit=draw.choice([64, 200, 512]),
        caching=caching,
    )


def differs(setup: Setup) -> str:
    """What is not the same in the engine and the oracle; empty if nothing. Decisions are the chunks and the evictions
    of every pass of every replica."""
    ran = setup.run()
    times, replicas = oracle.run(setup)
    passes, preemptions = sum(r.passes for r in replicas), sum(r.preemptions for r in replicas)
    if (ran.passes, ran.preemptions) != (passes, preemptions):
        return f"passes {ran.passes} and {passes}, preemptions {ran.preemptions} and {preemptions}"
    for i, replica in enumerate(replicas):
        ours = sorted(
            (index, job, choice) for _, at, _, job, choice, index in ran.log.decisions if at == f"r{i}" and job >= 0
        )
        different = [pair for pair in zip(ours, replica.choices, strict=False) if pair[0] != pair[1]]
        if different or len(ours) != len(replica.choices):
            return f"r{i} decides {different[:1]}, {len(ours)} and {len(replica.choices)} decisions"
    apart = ran.apart(times)
    return f"{apart} s apart" if apart > 1e-6 else ""


@pytest.mark.parametrize("chunk", range(10))
def test_random_configurations_equal_the_oracle(chunk: int) -> None:
    for seed in range(chunk, CONFIGURATIONS, 10):
        assert not differs(configuration(seed)), f"configuration({seed})"


def meetings() -> list[tuple[str, str, str]]:
    """Every queue and every batcher in every regime, each time with another partner."""
    queues, names = list(QUEUES), list(BATCHERS)
    return [
        (regime, names[(i + k) % len(names)], queues[(i + 3 * k) % len(queues)])
        for k, regime in enumerate(REGIMES)
        for i in range(max(len(queues), len(names)))
    ]


@pytest.mark.parametrize(("regime", "batcher", "queue"), meetings())
def test_every_queue_and_batcher_in_every_regime(regime: str, batcher: str, queue: str) -> None:
    setup = configuration(7, regime=regime, batcher=batcher, queue=queue)
    assert not differs(setup)


def test_memory_short_really_preempts() -> None:
    """Else that regime would prove nothing."""
    counts = [configuration(s, regime="memory_short", batcher="chunked").run().preemptions for s in range(12)]
    assert sum(n > 0 for n in counts) >= 9


class TimelessVtc(Vtc):
    """A liar: service moves its order."""

    timeless = True


class ForeverVtc(Vtc):
    """A liar: claims that its head never changes."""

    def stable(self, now: float, decoding: Any) -> Horizon:
        return Horizon(FOREVER)


class TimelessAgingLongest(AgingLongest):
    """A liar: impatience moves its order."""

    timeless = True


class DeafVtc(Vtc):
    """Books at the end of a plan only what the engine says before a push is dropped."""

    def serve(self, decoding: Any, passes: int) -> None:
        if passes > 1:
            super().serve(decoding, 1)
        else:
            super().serve(decoding, passes)


@pytest.mark.parametrize("liar", [TimelessVtc, ForeverVtc, lambda: TimelessAgingLongest(patience=0.4), DeafVtc])
def test_liars_are_caught(liar: Any) -> None:
    caught = 0
    for seed in range(24):
        setup = configuration(seed, regime="memory_short", batcher="chunked", queue="vtc")
        setup.queue = liar
        caught += bool(differs(setup))
    assert caught >= 3

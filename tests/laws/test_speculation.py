"""Replicas that speculate: memory and tokens add up whatever is accepted, and as much is accepted as theory says."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airi_sim.core.log import Log
from airi_sim.core.types import FOREVER, Affine, Item, Plan, Request
from airi_sim.engine.driver import Driver
from airi_sim.engine.speculation import SpeculativeExecutor, Turns
from airi_sim.hardware.choose import cost_model
from airi_sim.hardware.deployment import Deployment
from airi_sim.hardware.speculation import Speculation, SpeculativeCost, chunks_of, drafting, rows_of
from airi_sim.policies.admission import Always
from airi_sim.policies.faults import Retry
from airi_sim.policies.models import Fixed
from airi_sim.policies.queues import Fcfs, Vtc
from airi_sim.results.columns import Columns
from airi_sim.results.tokens import Tokens
from airi_sim.runtime.pool import Pool
from airi_sim.runtime.runtime import Runtime
from airi_sim.runtime.speculation import SpeculativeServer, layers
from airi_sim.runtime.view import Board
from airi_sim.workbench.objects import instantiate
from airi_sim.workbench.plugins import group_node
from airi_sim.workbench.speculation import accepted_places, mean_rate
from airi_sim.workload.speculation import Acceptance, expected_tokens
from tests.laws.test_conservation import check, check_pages
from tests.laws.test_oracle import BATCHERS, EVICTORS, QUEUES
from tests.laws.test_shapes import empty, statuses
from tests.laws.worlds import Lengths, Line, Ran, Setup, copy, workload


@dataclass
class Drafting(Setup):
    """A world whose replicas draft `drafted` tokens a pass, accepted at `rate` or as `recorded`."""

    drafted: int = 3
    rate: float = 0.6
    recorded: dict[int, dict[int, int]] | None = None
    detailed: bool = False

    def build(self, fast: bool = True) -> tuple[Runtime, Driver, Log]:
        log = Log()
        servers = [
            SpeculativeServer(
                f"r/{i}", i, self.queue, self.batcher(), self.evictor(), log, blocks=self.blocks, block=self.block,
                seats=self.seats, limit=self.limit, fast=fast, caching=self.caching, hash_block=16, depth=self.depth,
                chunked=self.chunked, lookahead=self.drafted, detailed=self.detailed,
            )
            for i in range(self.replicas)
        ]  # fmt: skip
        pool = Pool("r", "generate", "", servers, self.router(), Board(servers, self.period, FOREVER))
        runtime = Runtime([pool], log, admission=Always(), model_router=Fixed(), faults=Retry(), programs=self.programs)
        acceptance = Acceptance(self.rate, 1, self.recorded)
        turns = [Turns(Lengths(self.items), acceptance, self.drafted, self.depth) for _ in servers]
        return runtime, Driver(runtime, [SpeculativeExecutor(self.cost, one) for one in turns]), log


def lengths(log: Log) -> dict[int, int]:
    return {row[0]: row[9] for row in log.requests}


worlds = st.builds(
    lambda seed, rate, **rest: Drafting(workload(seed, 25, rate, 200, 60, groups=2), caching=True, **rest),
    seed=st.integers(0, 10**6),
    rate=st.sampled_from([2.0, 30.0, 200.0]),
    queue=st.sampled_from(list(QUEUES.values())),
    batcher=st.sampled_from(list(BATCHERS.values())),
    evictor=st.sampled_from(list(EVICTORS.values())),
    blocks=st.sampled_from([24, 40, 90, 5000]),
    seats=st.sampled_from([3, 12, 40]),
    limit=st.sampled_from([280, 512]),
    replicas=st.sampled_from([1, 2]),
    drafted=st.sampled_from([1, 3, 6]),
    depth=st.sampled_from([1, 1, 2]),
    detailed=st.booleans(),
)


@given(worlds)
@settings(max_examples=40, deadline=None)
def test_memory_and_tokens_are_conserved_whatever_is_accepted(setup: Drafting) -> None:
    runtime, driver, log = setup.build()
    finish = runtime.finish

    def watched(plan: Any, outcome: Any, now: float) -> None:
        finish(plan, outcome, now)
        for server in runtime.servers:
            check(server)
            if setup.detailed:
                check_pages(server)

    runtime.finish = watched  # type: ignore[method-assign]
    driver.run(iter([Item(copy(item.request), item.output_tokens) for item in setup.items]))
    assert set(statuses(log).values()) == {"finished"}
    assert lengths(log) == {item.request.id: item.output_tokens for item in setup.items}
    for server in runtime.servers:
        assert not server.jobs
        assert not server.turns


@given(worlds, st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_whoever_dies_or_is_cancelled_leaves_nothing_behind(setup: Drafting, seed: int) -> None:
    runtime, driver, log = setup.build()
    draw = random.Random(seed)
    last = setup.items[-1].request.arrival
    for i in range(0, 25, 3):
        at = draw.uniform(0, 1.5 * last)
        driver.at(at, lambda i=i, at=at: runtime.cancel(i, at))
    for index in range(setup.replicas):
        at = draw.uniform(0, last)
        driver.at(at, lambda i=index, at=at: runtime.server_down(i, at))
        driver.at(at + 0.3, lambda i=index, at=at: runtime.server_up(i, at + 0.3))
    driver.run(iter([Item(copy(item.request), item.output_tokens) for item in setup.items]))
    assert not runtime.flows
    assert sum(runtime.counts.values()) - runtime.counts["offered"] == 25
    for server in runtime.servers:
        check(server)
        assert not server.jobs
        assert not server.turns
        if setup.detailed:
            check_pages(server)
    truth = {item.request.id: item.output_tokens for item in setup.items}
    finished = [number for number, status in statuses(log).items() if status == "finished"]
    assert {number: lengths(log)[number] for number in finished} == {number: truth[number] for number in finished}


@pytest.mark.parametrize("batcher", BATCHERS.values())
def test_a_pass_holds_no_more_tokens_than_its_limit(batcher: Any) -> None:
    made: list[int] = []
    setup = Drafting(workload(3, 60, 80.0, 200, 60), seats=20, limit=100, drafted=4, blocks=80, batcher=batcher)
    watched_plans(setup, lambda _, plan: made.append(plan.prefill_tokens + 5 * plan.sequences))
    assert max(made) <= 100
    assert any(tokens > 60 for tokens in made)


def watched(driver: Driver, look: Any) -> None:
    """Let `look(server, plan)` be called with every plan when it was made."""

    def watch(start: Any, server: Any) -> Any:
        def started(plan: Plan, now: float) -> Any:
            look(server, plan)
            return start(plan, now)

        return started

    driver.starts = [watch(*pair) for pair in zip(driver.starts, driver.runtime.servers, strict=True)]


def watched_plans(setup: Drafting, look: Any) -> None:
    _, driver, _ = setup.build()
    watched(driver, look)
    driver.run(iter(setup.items))


def test_who_is_evicted_from_a_draft_gives_its_share_of_the_budget_back() -> None:
    evictions = []

    class FirstIn:
        """So that prompts under way take the memory of those who decode."""

        def victim(self, running: Any, now: float) -> Any:
            server = runtime.servers[0]
            evictions.append(server.decodes)
            return next(iter(running.values()))

    def look(server: Any, plan: Plan) -> None:
        assert server.budget == server.limit - plan.prefill_tokens - 5 * plan.sequences

    items = workload(3, 60, 80.0, 400, 60)
    setup = Drafting(items, seats=20, limit=100, drafted=4, blocks=80, evictor=FirstIn)
    runtime, driver, _ = setup.build()
    watched(driver, look)
    driver.run(iter(items))
    assert any(evictions)


def test_the_longest_context_is_known_and_what_it_takes_is_bounded() -> None:
    class Padded(Line):
        needs_longest = True

    sizes = []

    def look(server: Any, plan: Plan) -> None:
        members = [server.lane.tokens(job) for job in server.running.values() if job.lane is server.lane]
        assert plan.longest == (max(members, default=0) if plan.sequences else 0)
        sizes.append(len(server.lane.heap))

    setup = Drafting(workload(6, 60, 60.0, 100, 400), seats=16, cost=Padded(), rate=0.8)
    watched_plans(setup, look)
    assert max(sizes) < 6 * setup.seats < len(sizes)


def test_a_job_as_long_as_the_memory_gets_by_without_room_for_its_drafts() -> None:
    setup = Drafting([Item(Request(0, 0.0, 100), 500)], blocks=10, drafted=6)
    runtime, driver, log = setup.build()
    driver.run(iter(setup.items))
    empty(runtime)
    row = log.requests[0]
    assert (row[9], row[11], row[12]) == (10 * 16 - 6 - 100, "finished", "length")


# -- as many passes as theory says


def passes_of(rate: float, drafted: int, output: int) -> int:
    return Drafting([Item(Request(0, 0.0, 10), output)], rate=rate, drafted=drafted).run().passes - 1  # the prompt


def test_all_or_nothing_is_exact() -> None:
    for drafted in (1, 2, 5):
        assert passes_of(0.0, drafted, 301) == 300
        assert passes_of(1.0, drafted, 301) == -(-300 // (drafted + 1))


@pytest.mark.parametrize(("rate", "drafted"), [(0.3, 2), (0.7, 4), (0.9, 8)])
def test_tokens_a_pass_are_those_of_the_closed_form(rate: float, drafted: int) -> None:
    """Leviathan et al. 2023, equation 1: within four standard errors of the mean of so many passes."""
    output = 20_000
    mean = (output - 1) / passes_of(rate, drafted, output)
    spread = np.sqrt(sum((n + 1 - expected_tokens(rate, drafted)) ** 2 * p for n, p in accepts(rate, drafted)))
    assert mean == pytest.approx(expected_tokens(rate, drafted), abs=4 * spread / np.sqrt(output / mean))


def accepts(rate: float, drafted: int) -> list[tuple[int, float]]:
    """How many drafted tokens are accepted, and with what probability."""
    return [*((n, rate**n * (1 - rate)) for n in range(drafted)), (drafted, rate**drafted)]


@dataclass(frozen=True)
class Each:
    """A pass with decodes takes `seconds`, and grows by `step` with each of its kind; equal for `passes` of them."""

    seconds: float
    step: float = 0.0
    passes: int = FOREVER

    def affine(self, plan: Plan) -> Affine:
        return Affine(self.seconds + self.step * (plan.context // max(plan.sequences, 1)), self.step, self.passes)


@pytest.mark.parametrize(("rate", "drafted", "cost"), [(0.8, 5, 0.1), (0.5, 2, 0.3)])
def test_the_speed_up_is_that_of_the_closed_form(rate: float, drafted: int, cost: float) -> None:
    """Leviathan et al. 2023, theorem 3.8: (1 - a^(k+1)) / ((1 - a) (k c + 1)) for drafts of c passes of the target."""
    items = [Item(Request(0, 0.0, 10), 20_000)]
    both = SpeculativeCost(Each(1.0), Each(cost), drafted)
    log = Drafting(items, rate=rate, drafted=drafted, cost=both).run().log
    first, finish = log.requests[0][6:8]
    assert first == pytest.approx(1 + cost)  # the prompt goes through both
    wanted = expected_tokens(rate, drafted) / (drafted * cost + 1)
    assert 20_000 / (finish - first) == pytest.approx(wanted, rel=0.03)


@given(st.integers(1, 12), st.integers(1, 5), st.floats(0, 0.1))
def test_the_passes_of_the_draft_are_summed_as_one_by_one(drafted: int, flat: int, step: float) -> None:
    """Whatever the bound up to which the cost model of the draft can sum."""
    plan = Plan(0, 0.0, sequences=3, context=300, longest=120)
    draft = Each(0.5, step, flat)
    one_by_one = sum(draft.affine(drafting(plan, done)).first for done in range(drafted))
    assert SpeculativeCost(Each(2.0), draft, drafted).affine(plan).first == pytest.approx(2.0 + one_by_one)


def test_a_checking_pass_is_described_in_the_terms_of_the_model_that_prices_it() -> None:
    """Two decodes of 100 and 140 tokens beside a chunk of 8 after 16; three drafted tokens."""
    plan = Plan(
        0, 0.0, [(None, 8)], sequences=2, context=240, longest=140, prefill_tokens=8, prefill_attention=8 * 40,
        prefill_context=24,
    )  # fmt: skip
    rows, chunks = rows_of(plan, 3), chunks_of(plan, 3)
    assert (rows.sequences, rows.context, rows.longest, rows.prefill_tokens) == (8, 240, 143, 8)
    assert (chunks.sequences, len(chunks.slices), chunks.prefill_tokens) == (0, 3, 16)
    assert chunks.prefill_attention == 8 * 40 + 4 * (2 * 100 + 4) + 4 * (2 * 140 + 4)
    assert chunks.prefill_context == 24 + 104 + 144
    first, then = drafting(plan), drafting(plan, 2)
    assert (first.sequences, first.prefill_tokens, then.sequences, then.prefill_tokens) == (4, 8, 2, 0)
    assert (then.context, then.longest) == (244, 142)


def test_a_pass_that_checks_costs_more_than_one_that_decodes_and_less_than_several() -> None:
    """On a large accelerator, where weights are what a small batch waits for."""
    model, draft = (instantiate(group_node("model", name), "model") for name in ("llama-3.1-8b", "llama-3.2-1b"))
    device = instantiate(group_node("accelerator", "h100-sxm"), "accelerator")
    pool = Deployment("p", "generate", model, device)
    speculating = replace(pool, speculation=Speculation(draft, 4))
    plan = Plan(0, 0.0, sequences=8, context=8000, longest=1000)
    alone = cost_model(pool).affine(plan).first
    check = cost_model(pool).affine(rows_of(plan, 4)).first
    whole = cost_model(speculating).affine(plan).first
    assert alone < check < 1.2 * alone
    assert check < whole < 3 * alone


@given(st.floats(0, 0.99), st.integers(1, 20))
def test_the_closed_form_is_the_mean_of_what_can_happen(rate: float, drafted: int) -> None:
    mean = sum((n + 1) * p for n, p in accepts(rate, drafted))
    assert mean == pytest.approx(expected_tokens(rate, drafted))


def test_how_many_are_accepted_is_a_matter_of_the_place_alone() -> None:
    """However far other drafts reach, and whoever asks first."""
    job, one, two = Request(7, 0.0, 1), Acceptance(0.6, 3), Acceptance(0.6, 3)
    live: Any = type("Job", (), {"id": job.id})()
    forth = [one.accepted(live, place, 4) for place in range(600)]
    back = [two.accepted(live, place, 8) for place in reversed(range(600))][::-1]
    assert forth == [min(n, 4) for n in back]
    two.forget(job.id)
    assert forth == [two.accepted(live, place, 4) for place in range(600)]
    assert all(after == before - 1 for before, after in pairwise(back) if 0 < before < 8)
    live.id = 8
    assert forth != [one.accepted(live, place, 4) for place in range(600)]


@dataclass(frozen=True)
class Second:
    """Every pass takes a second."""

    def affine(self, plan: Plan) -> Affine:
        return Affine(1.0)


def test_token_times_are_the_ends_of_their_passes() -> None:
    setup = Drafting(workload(2, 40, 0.5, 200, 60), blocks=60, cost=Second(), rate=0.7)
    runtime, driver, log = setup.build()
    seen: dict[int, list[float]] = {}
    prompts: list[Any] = []
    finish = runtime.finish

    def watched(plan: Any, outcome: Any, now: float) -> None:
        prompts.append(plan.ends)
        for job in plan.ends:
            seen.setdefault(job.id, []).append(now)
        for job, tokens in (outcome.advanced or {}).items():
            seen.setdefault(job.id, []).extend([now] * tokens)
        finish(plan, outcome, now)

    runtime.finish = watched  # type: ignore[method-assign]
    driver.run(iter([Item(copy(item.request), item.output_tokens) for item in setup.items]))
    assert sum(row[13] for row in log.jobs) > 0, "nobody was preempted"
    tokens = Tokens(Columns("plans", log.plans), Columns("spans", log.spans))
    for job, times in seen.items():
        np.testing.assert_allclose(tokens.times(job), times)
        assert len(times) == {row[0]: row[11] for row in log.jobs}[job]
    firsts = sum(len(plan_ends) for plan_ends in prompts)
    turns = sum(row[4] * row[5] for row in log.plans)
    assert tokens.per_pass == (sum(map(len, seen.values())) - firsts) / turns > 2
    values, often = tokens.gaps()
    each = Counter(round(gap) for times in seen.values() for gap in np.diff(times))
    found = Counter(dict.fromkeys(each, 0))
    for value, count in zip(values.tolist(), often.tolist(), strict=True):
        found[round(value)] += count
    assert found == each


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(0, 9))
def test_layers_hold_every_token_once(counts: list[int], first: int) -> None:
    turns = [(first + at, n) for at, n in enumerate(counts) if n != 1]
    found = list(layers(first, first + len(counts), turns))
    held = Counter(at for begin, end in found for at in range(begin, end))
    assert [held[first + at] for at in range(len(counts))] == counts
    assert found[0][0] == first


def test_queues_hear_of_every_token() -> None:
    served: Counter[str] = Counter()

    class Counting(Vtc):
        def serve(self, decoding: Any, passes: int) -> None:
            served.update({account: n * passes for account, n in decoding.items()})
            super().serve(decoding, passes)

    setup = Drafting(workload(5, 40, 30.0, 200, 60), queue=Counting, rate=0.8)
    setup.run()
    wanted: Counter[str] = Counter()
    for item in setup.items:  # the first token comes with the prompt
        wanted[item.request.tenant] += item.output_tokens - 1
    assert served == wanted


# -- what was accepted can be told from the log


@given(st.integers(0, 1000), st.sampled_from([0.2, 0.8]), st.sampled_from([30, 5000]))
@settings(max_examples=10, deadline=None)
def test_a_run_that_accepts_what_another_did_is_the_same(seed: int, rate: float, blocks: int) -> None:
    setup = Drafting(workload(seed, 30, 30.0, 150, 60), blocks=blocks, rate=rate)
    ran = setup.run()
    found = accepted_places(ran.log.spans)
    again = Drafting(setup.items, blocks=blocks, rate=0.5, recorded=found).run()
    assert again.log.decisions_hash() == ran.log.decisions_hash()
    assert again.times == ran.times
    assert mean_rate(found, 3) == pytest.approx(rate, abs=0.12)


def both(setup: Drafting) -> tuple[Ran, Ran]:
    return setup.run(fast=True), setup.run(fast=False)


def test_fast_is_stepwise() -> None:
    for queue in (Fcfs, Vtc):
        fast, slow = both(Drafting(workload(4, 60, 60.0, 200, 60), blocks=60, queue=queue, cost=Line()))
        assert fast.log.decisions_hash() == slow.log.decisions_hash()
        assert fast.apart(slow.times) < 1e-6

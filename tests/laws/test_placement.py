"""Models that come and go: who waits for them, what is in memory when, and that nothing is lost whatever happens."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import Any

import pytest

from airi_sim.core.errors import PolicyError
from airi_sim.core.log import Log
from airi_sim.core.types import FOREVER, Affine, Call, Item, Job, Plan, Request, Site
from airi_sim.engine.driver import Driver
from airi_sim.engine.executors import CostExecutor, ServiceExecutor
from airi_sim.engine.turns import Device, TurnsDriver
from airi_sim.policies.admission import Always
from airi_sim.policies.batchers import ChunkedPrefill
from airi_sim.policies.evictors import LastIn
from airi_sim.policies.faults import Retry
from airi_sim.policies.models import Fixed
from airi_sim.policies.placements import KeepAlive, LruSwap, Static
from airi_sim.policies.queues import Fcfs
from airi_sim.policies.routers import RoundRobin
from airi_sim.runtime.placement import PlacingRuntime
from airi_sim.runtime.places import HostCopies, Loader, Memory, Spot, placed
from airi_sim.runtime.pool import Pool
from airi_sim.runtime.token_server import TokenServer
from airi_sim.runtime.view import Board
from tests.laws.worlds import Lengths, Line, chat, copy, workload

MODELS = 6
SIZE = 10.0
SLOW, FAST = 0.5, 0.1


class Weights:
    """A load takes SLOW seconds, FAST ones from a copy in the host; an unload takes some, too."""

    def affine(self, plan: Plan) -> Affine:
        if plan.kind == "unload":
            return Affine(0.01)
        return Affine(FAST if plan.slices[0][0].tier == "host" else SLOW)


@dataclass
class Zoo:
    """Models 0 to 5, each of one replica, on a device with room for so many."""

    policy: Callable[[], Any] = LruSwap
    room: int = 3
    host: float = 0.0
    requests: int = 60
    rate: float = 4.0
    seed: int = 3
    shared: bool = True

    def items(self) -> list[Item]:
        """Requests, most of them for the first models."""
        draw = random.Random(self.seed)
        names = [f"m{i}" for i in range(MODELS)]
        found = []
        for item in workload(self.seed, self.requests, self.rate, 100, 60):
            request = copy(item.request)
            request.model = draw.choices(names, [1 / (k + 1) for k in range(MODELS)])[0]
            found.append(Item(request, item.output_tokens))
        return found

    def build(self, items: Sequence[Item], fast: bool = True) -> tuple[PlacingRuntime, Driver, Log]:
        log = Log()
        servers = [
            TokenServer(f"m{i}/0", i, Fcfs, ChunkedPrefill(), LastIn(), log, blocks=200, seats=8, limit=256, fast=fast)
            for i in range(MODELS)
        ]
        loader = Loader("gpu/0", MODELS, Fcfs, log)
        memory = Memory("gpu", self.room * SIZE, loader)
        memory.spots = [Spot(server, f"m{i}", "gpu", SIZE - 1, SIZE) for i, server in enumerate(servers)]
        pools: list[Pool] = [
            placed(
                Pool(f"m{i}", "generate", f"m{i}", [server], RoundRobin(), Board([server], 0.0, FOREVER)),
                [memory.spots[i]],
            )
            for i, server in enumerate(servers)
        ]
        runtime = PlacingRuntime(
            [*pools, Pool("gpu", "load", "", [loader], RoundRobin(), Board([loader]))], log, placement=self.policy(),
            memories=[memory], host=HostCopies(self.host, "nvme"), admission=Always(), model_router=Fixed(),
            faults=Retry(), programs={"chat": chat},
        )  # fmt: skip
        script = Lengths(items)
        executors: list[Any] = [CostExecutor(Line(), script) for _ in servers] + [ServiceExecutor(Weights())]
        one = Device() if self.shared else None
        return runtime, TurnsDriver(runtime, executors, devices=[one] * MODELS + [None]), log

    def run(self, fast: bool = True, accidents: Callable[[PlacingRuntime, Driver], None] | None = None) -> Ran:
        items = self.items()
        runtime, driver, log = self.build(items, fast)
        if accidents is not None:
            accidents(runtime, driver)
        driver.run(iter([Item(copy(item.request), item.output_tokens) for item in items]))
        return Ran(runtime, log, items)


@dataclass
class Ran:
    runtime: PlacingRuntime
    log: Log
    items: list[Item]

    def rows(self, kind: str) -> list[tuple[Any, ...]]:
        return sorted([row for row in self.log.plans if row[1] == kind], key=lambda row: (row[2], row[3]))

    @property
    def statuses(self) -> dict[int, str]:
        return {row[0]: row[11] for row in self.log.requests}

    @property
    def choices(self) -> list[str]:
        return [row[4] for row in self.log.decisions if row[4].startswith(("load", "unload"))]

    def settled(self, first: int = 0) -> None:
        """Everything is accounted for and nothing is held that should not be."""
        runtime = self.runtime
        assert sorted(self.statuses) == [item.request.id for item in self.items]
        assert not runtime.flows and not runtime._wanted()
        for spot in runtime.spots.values():
            server = spot.server
            assert not server.jobs and not server.flights and server.free == server.total
            assert spot.state in ("cold", "up")
        assert runtime.fleet.free("gpu") >= 0
        self.fits(first)

    def fits(self, held: int) -> None:
        """Never more in memory than there is, from the begin of a load to the end of the unload; one at a time."""
        changes = [(row[2], 1, 1) for row in self.rows("load")] + [(row[3], 0, -1) for row in self.rows("unload")]
        for _, _, change in sorted(changes):
            held += change
            assert 0 <= held * SIZE <= self.runtime.memories["gpu"].budget
        moves = sorted([(row[2], row[3]) for row in self.log.plans if row[1] in ("load", "unload")])
        assert all(first[1] <= second[0] for first, second in pairwise(moves))


class Seen:
    """A fleet as a policy sees it: (server, model, used, jobs) of those that are up, and names of cold ones."""

    def __init__(self, up: list[tuple[int, str, float, int]], cold: list[str], room: float = 0.0) -> None:
        self.sites = [Site(server, model, "gpu", SIZE, "up", jobs, used, used) for server, model, used, jobs in up]
        self.sites += [Site(len(up) + i, model, "gpu", SIZE, "cold", 0, -inf, -inf) for i, model in enumerate(cold)]
        self.room = room

    def free(self, device: str) -> float:
        return self.room


def job() -> Job:
    return Job(Request(0, 0.0, 1), Call(), 0, 0.0)


class TestSwap:
    """The least recently used model makes way."""

    def test_every_request_is_served_although_only_three_of_six_models_fit(self) -> None:
        ran = Zoo().run()
        assert set(ran.statuses.values()) == {"finished"}
        ran.settled()
        assert len(ran.rows("load")) > MODELS
        assert len(ran.rows("load")) - len(ran.rows("unload")) <= 3
        assert len(ran.choices) == len(ran.rows("load")) + len(ran.rows("unload"))

    def test_a_model_that_serves_finishes_its_jobs_before_it_goes(self) -> None:
        ran = Zoo(rate=40.0).run()
        ran.settled()
        for name, _, start, end, *_ in ran.rows("unload"):
            mine = [row for row in ran.log.plans if row[0] == name and row[1] == "pass"]
            assert not any(row[3] > start and row[2] < end for row in mine)
        assert not any(row[13] for row in ran.log.jobs)  # nobody was preempted for it

    def test_passes_run_only_while_their_model_is_there(self) -> None:
        ran = Zoo(rate=20.0).run()
        for index in range(MODELS):
            name, up = f"m{index}/0", False
            for row in sorted([row for row in ran.log.plans if row[0] == name], key=lambda row: row[2]):
                assert up == (row[1] != "load")
                up = row[1] != "unload"

    def test_the_least_recently_used_goes_and_idle_ones_before_it(self) -> None:
        policy = LruSwap()
        fleet = Seen([(0, "a", 2.0, 1), (1, "b", 5.0, 0), (2, "c", 4.0, 0)], ["d"])
        assert policy.place(fleet, {"d": job()}, 9.0) == [("unload", 2), ("load", 3)]
        busy = Seen([(0, "a", 2.0, 1), (1, "b", 5.0, 1), (2, "c", 4.0, 1)], ["d"])
        assert policy.place(busy, {"d": job()}, 9.0) == [("unload", 0), ("load", 3)]

    @pytest.mark.parametrize("rate", [0.5, 4.0, 60.0])
    @pytest.mark.parametrize("shared", [True, False])
    def test_fast_forward_and_pass_by_pass_agree(self, rate: float, shared: bool) -> None:
        zoo = Zoo(rate=rate, shared=shared)
        fast, slow = zoo.run(), zoo.run(fast=False)
        assert fast.log.decisions_hash() == slow.log.decisions_hash()
        for mine, other in zip(fast.log.requests, slow.log.requests, strict=True):
            assert mine[7] == pytest.approx(other[7], abs=1e-6)

    def test_a_model_that_fits_beside_the_others_evicts_nobody(self) -> None:
        ran = Zoo(room=MODELS).run()
        assert not ran.rows("unload")
        assert len(ran.rows("load")) == len({item.request.model for item in ran.items})


class TestStatic:
    """What is there at the start stays."""

    def test_what_does_not_fit_is_refused_with_a_sentence(self) -> None:
        ran = Zoo(policy=Static).run()
        ran.settled()
        assert not ran.choices and not ran.rows("load")
        for row in ran.log.requests:
            fits = row[4] in ("m0", "m1", "m2")
            assert row[11] == ("finished" if fits else "rejected")
            assert fits or f"model '{row[4]}' found no room" in row[12]

    def test_warm_swapping_begins_with_the_same_models(self) -> None:
        warm = Zoo(policy=lambda: LruSwap(warm=True)).run()
        cold = Zoo().run()
        warm.settled(3)
        assert len(warm.rows("load")) < len(cold.rows("load"))


class TestKeepAlive:
    """Models that nobody uses go after a while."""

    def test_a_model_goes_when_its_time_is_over(self) -> None:
        ran = Zoo(policy=lambda: KeepAlive(ttl_s=1.0), room=MODELS, rate=1.0).run()
        ran.settled()
        assert ran.rows("unload")
        for name, _, start, *_ in ran.rows("unload"):
            over = [row[9] for row in ran.log.jobs if row[5] == name and row[9] <= start]
            assert start >= max(over) + 1.0 - 1e-9

    def test_the_run_ends_with_its_last_request(self) -> None:
        ran = Zoo(policy=lambda: KeepAlive(ttl_s=50.0), room=MODELS).run()
        last = max(row[7] for row in ran.log.requests)
        assert max(row[3] for row in ran.log.plans) == last

    def test_who_comes_after_the_time_is_over_finds_it_cold(self) -> None:
        ran = Zoo(policy=lambda: KeepAlive(ttl_s=0.5), room=MODELS, rate=0.05, requests=12).run()
        assert len(ran.rows("load")) == 12


class TestHost:
    """Copies of weights in the host."""

    def test_what_the_host_kept_comes_faster(self) -> None:
        ran = Zoo(host=2 * (SIZE - 1)).run()
        ran.settled()
        seconds = {round(row[3] - row[2], 6) for row in ran.rows("load")}
        assert seconds == {SLOW, FAST}

    def test_the_least_recently_loaded_copy_goes_first(self) -> None:
        host = HostCopies(20.0, "nvme")
        assert [host.take(name, 10.0) for name in "abacab"] == ["nvme", "nvme", "host", "nvme", "host", "nvme"]
        assert sorted(host.sizes) == ["a", "b"]

    def test_what_does_not_fit_is_not_kept(self) -> None:
        host = HostCopies(5.0, "store")
        assert [host.take("a", 10.0), host.take("a", 10.0)] == ["store", "store"]
        assert not host.sizes


class Circle:
    """Loads the first model and takes it away again, whoever waits."""

    def place(self, fleet: Any, wanted: Any, now: float) -> Sequence[tuple[str, int]]:
        if any(site.state not in ("up", "cold") for site in fleet.sites):
            return []
        up = [site.server for site in fleet.sites if site.state == "up"]
        return [("unload", server) for server in up] or [("load", 0)]


def test_models_that_come_and_go_in_circles_end_the_run() -> None:
    items = [Item(Request(0, 0.0, 50, model="m1"), 5)]
    _, driver, _ = Zoo(policy=Circle).build(items)
    with pytest.raises(PolicyError, match="Circle goes in circles"):
        driver.run(iter(items))


class Patient(ChunkedPrefill):
    """Runs nobody."""

    def form(self, draft: Any, queue: Any, now: float) -> None:
        """Let them wait."""


def test_a_cancellation_that_leaves_a_model_idle_lets_the_next_one_in() -> None:
    items = [Item(Request(0, 0.0, 50, model="m0"), 5), Item(Request(1, 2.0, 50, model="m1"), 5)]
    runtime, driver, _ = Zoo(room=1).build(items)
    runtime.servers[0].batcher = Patient()
    driver.at(3.0, lambda: runtime.cancel(0, 3.0))
    driver.run(iter(items))
    assert (runtime.counts["finished"], runtime.counts["cancelled"]) == (1, 1)


class TestAccidents:
    """Cancellations and deaths in every state."""

    def test_a_request_that_waits_for_its_model_can_be_given_up(self) -> None:
        items = Zoo().items()
        first = items[0].request

        def accidents(runtime: PlacingRuntime, driver: Driver) -> None:
            at = first.arrival + SLOW / 2
            driver.at(at, lambda: runtime.cancel(first.id, at))

        ran = Zoo().run(accidents=accidents)
        ran.settled()
        assert ran.statuses[first.id] == "cancelled"
        assert [row[7] for row in ran.log.jobs if row[1] == first.id] == [None]

    @pytest.mark.parametrize("seed", range(25))
    def test_nothing_is_lost_when_replicas_and_loaders_die(self, seed: int) -> None:
        draw = random.Random(seed)
        policy: Any = draw.choice([LruSwap, Static, lambda: KeepAlive(ttl_s=draw.uniform(0.1, 3.0))])
        zoo = Zoo(policy, draw.randint(1, 4), draw.choice([0.0, 20.0]), 40, draw.choice([2.0, 8.0, 50.0]), seed)
        last = zoo.items()[-1].request.arrival

        def accidents(runtime: PlacingRuntime, driver: Driver) -> None:
            for _ in range(6):
                index, down = draw.randrange(MODELS + 1), draw.uniform(0, 1.2 * last)
                up = down + draw.uniform(0.01, 2.0)
                driver.at(down, lambda i=index, t=down: runtime.server_down(i, t))  # type: ignore[misc]
                driver.at(up, lambda i=index, t=up: runtime.server_up(i, t))  # type: ignore[misc]
            for request in draw.sample(range(40), 8):
                at = draw.uniform(0, 1.2 * last)
                driver.at(at, lambda r=request, t=at: runtime.cancel(r, t))  # type: ignore[misc]

        ran = zoo.run(accidents=accidents)
        assert sorted(ran.statuses) == list(range(40))
        assert not ran.runtime.flows and not ran.runtime._wanted()
        assert all(not s.server.jobs and s.server.free == s.server.total for s in ran.runtime.spots.values())
        assert ran.runtime.memories["gpu"].room == zoo.room * SIZE - ran.runtime.memories["gpu"].held("up", "loading")

    def test_who_waits_for_a_replica_that_is_down_fails(self) -> None:
        items = Zoo(requests=1).items()

        def accidents(runtime: PlacingRuntime, driver: Driver) -> None:
            at = items[0].request.arrival + SLOW / 2
            index = int(items[0].request.model[1:])
            driver.at(at, lambda: runtime.server_down(index, at))

        ran = Zoo(requests=1).run(accidents=accidents)
        assert ran.statuses == {0: "failed"}


class Says:
    """A placement that says one thing, once."""

    def __init__(self, *actions: tuple[str, int]) -> None:
        self.actions = list(actions)

    def place(self, fleet: Any, wanted: Any, now: float) -> list[tuple[str, int]]:
        actions, self.actions = self.actions, []
        return actions


class TestRules:
    """What a placement may not say."""

    @pytest.mark.parametrize(
        ("actions", "room", "words"),
        [
            ([("load", 0), ("load", 1)], 1, "unload something first"),
            ([("unload", 0)], 3, "which is cold"),
            ([("load", 0), ("load", 0)], 3, "which is loading"),
            ([("drop", 0)], 3, "it may load what is cold"),
            ([("load", 99)], 3, "named server 99"),
            ([], 3, "which policy Says never loads"),
        ],
    )
    def test_it_is_told(self, actions: list[tuple[str, int]], room: int, words: str) -> None:
        with pytest.raises(PolicyError, match=words):
            Zoo(policy=lambda: Says(*actions), room=room, requests=3).run()

    def test_what_is_there_from_the_start_must_fit(self) -> None:
        class Greedy(Says):
            def first(self, fleet: Any) -> list[int]:
                return [0, 1]

        with pytest.raises(PolicyError, match="unload something first"):
            Zoo(policy=Greedy, room=1).run()

"""Worker processes: real ones that are killed, stopped and replaced, whose passes take no torch; and three that do."""

from __future__ import annotations

import os
import pickle
import random
import signal
import socket
import time
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airi_sim.core.errors import BadInput
from airi_sim.core.types import Copies, Copy
from airi_sim.workbench.build import World, build
from airi_sim.workbench.config import load_config, plain
from airi_sim.workbench.leaks import check_leaks
from real_backend import weights, workers
from real_backend.backend import TorchBackend
from real_backend.batch import Segment
from real_backend.channel import Answer, Channel, Done, Parted, Refused, Task, decode, encode
from real_backend.parallel import PeerLost
from real_backend.worker import attempt, serve
from real_backend.workers import Crew, Lost
from tests.real_backend.pretender import PRETENDER
from tests.real_backend.reference import logits as reference_logits
from tests.real_backend.test_executor import LENGTHS, by_the_textbook, jobs, outputs
from tests.real_backend.world import LLAMA, POOL, Fixed, Mini

pytestmark = pytest.mark.real
RUNS = int(os.environ.get("AIRI_RANDOM_RUNS", "6"))


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "PROGRAM", PRETENDER)


Make = Callable[..., tuple[World, TorchBackend]]


@pytest.fixture
def make_world() -> Iterator[Make]:
    """A small measured world whose replicas live in worker processes, and its backend; none is left after the test."""
    made: list[TorchBackend] = []

    def make(*overrides: str, **options: Any) -> tuple[World, TorchBackend]:
        settings = ["validate=parity", "workload.n=12", "workload.rate=100", "workload.output.max=20", *overrides]
        config = plain(load_config(settings))
        defaults: dict[str, Any] = {"device": "cpu", "clock": "wall", "cocalibrate": False, "workers": 8}
        made.append(TorchBackend(**defaults | options))
        return build(config, made[-1]), made[-1]

    yield make
    for backend in made:
        backend.close()


def processes(world: World, replica: int) -> list[Any]:
    return list(world.driver.executors[replica].crew.processes)


def send(world: World, replica: int, number: int) -> None:
    """A signal to the first process of a replica, if it has one."""
    for process in processes(world, replica)[:1]:
        os.kill(process.pid, number)


def run(world: World, backend: TorchBackend) -> dict[int, str]:
    """Run it to its end; the status of each request. Nothing may be left, of requests or of processes."""
    begun = [process for i in range(len(world.driver.executors)) for process in processes(world, i)]
    world.driver.run(iter(world.workload))
    backend.rest()
    check_leaks(world)
    assert all(process.poll() is not None for process in begun)
    statuses = {row[0]: row[11] for row in world.log.requests}
    assert sorted(statuses) == list(range(12)), "every request is accounted for, once"
    return statuses


def check_tokens(world: World) -> None:
    """Whoever finished got as many tokens as its script says, whatever died on the way."""
    lengths = {item.request.id: item.output_tokens for item in world.workload}
    for row in world.log.jobs:
        if row[14] == "finished":
            assert row[11] == lengths[row[1]]


# -- what crosses the socket


def segment(start: int, tokens: list[int], sample: bool) -> Segment:
    """With more blocks than its tokens fill."""
    return Segment(start, array("q", tokens), list(range(3, 6 + (start + len(tokens)) // 4)), sample)


segments = st.builds(
    segment,
    st.integers(0, 40), st.lists(st.integers(0, 2**40), min_size=1, max_size=9), st.booleans(),
)  # fmt: skip
copies = st.lists(
    st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=3).map(
        lambda pairs: (Copy(None, len(pairs), [a for a, _ in pairs], [b for _, b in pairs]),)
    ),
    min_size=3, max_size=3,
).map(lambda parts: Copies(*parts))  # fmt: skip


@given(st.integers(0, 1), st.lists(segments, min_size=1, max_size=5), st.none() | copies)
def test_a_pass_is_read_as_it_was_written(place: int, passed: list[Segment], copied: Copies | None) -> None:
    there, read, found = decode(encode(place, passed, 4, copied))
    assert there == place
    for one, other in zip(passed, read, strict=True):
        blocks = -(-(one.start + len(one.tokens)) // 4)
        assert other == one._replace(table=array("q", one.table[:blocks]))
    sent = [([*part[0].source], [*part[0].target]) for part in copied or () if part[0].blocks]
    assert sent == [([*part[0].source], [*part[0].target]) for part in found or () if part[0].blocks]


def test_a_silent_or_absent_peer_is_noticed_in_time() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    with pytest.raises(TimeoutError):
        channel.receive(0.01)
    with pytest.raises(TimeoutError):
        channel.send(bytes(1 << 24), 0.01)
    theirs.close()
    with pytest.raises(BrokenPipeError):
        channel.send(b"x", 0.01)
    channel.close()


# -- workers that die, hang and come back


@pytest.mark.usefixtures("pretended")
def test_the_requests_of_a_killed_worker_finish_elsewhere(make_world: Make) -> None:
    world, backend = make_world()
    world.driver.at(0.05, lambda: send(world, 0, signal.SIGKILL))
    assert set(run(world, backend).values()) == {"finished"}
    check_tokens(world)
    assert [server.up for server in world.runtime.servers] == [False, True]
    assert ["SIGKILL" in text and "default/0" in text for text in backend.notes] == [True]
    assert any(row[13] or row[5] == "default/1" for row in world.log.jobs)


@pytest.mark.usefixtures("pretended")
def test_a_stopped_worker_counts_as_lost_and_is_replaced(make_world: Make) -> None:
    world, backend = make_world(hang_s=0.2, restart=True)
    first = processes(world, 1)
    world.driver.at(0.03, lambda: send(world, 1, signal.SIGSTOP))
    world.driver.at(1.0, lambda: None)
    assert set(run(world, backend).values()) == {"finished"}
    assert [server.up for server in world.runtime.servers] == [True, True]
    assert backend.notes == ("a worker of default/1 did not answer for 0.2 s",)
    assert first[0].returncode == -signal.SIGKILL


@pytest.mark.usefixtures("pretended")
def test_an_answer_that_comes_too_late_is_nobodys() -> None:
    crew = Crew("late", [Task(POOL, "cpu", 0, "fp32", 0, {}, "work", ((16, 0),))], hang_s=0.1)
    crew.begin()
    crew.ready()
    process = crew.processes[0]
    os.kill(process.pid, signal.SIGSTOP)
    crew.ask(encode(0, [segment(0, [1], True)], POOL.block_size))
    with pytest.raises(Lost, match=r"did not answer for 0\.1 s"):
        crew.answers()
    assert process.poll() == -signal.SIGKILL
    with pytest.raises(Lost, match="no worker of late is left"):
        crew.ask(b"")


@pytest.mark.usefixtures("pretended")
def test_under_the_work_clock_too(make_world: Make) -> None:
    world, backend = make_world(clock="work", hang_s=0.2, restart=True)
    world.driver.at(0.03, lambda: send(world, 0, signal.SIGKILL))
    world.driver.at(0.06, lambda: send(world, 1, signal.SIGSTOP))
    statuses = run(world, backend)
    check_tokens(world)
    assert all(server.up for server in world.runtime.servers)
    assert len(backend.notes) == 2
    failed = [row[12] for row in world.log.requests if row[11] == "failed"]
    assert len(failed) + sum(status == "finished" for status in statuses.values()) == 12
    assert set(failed) <= {"no replica of pool 'default' is up"}


@pytest.mark.usefixtures("pretended")
def test_with_nobody_left_requests_fail_with_a_reason(make_world: Make) -> None:
    world, backend = make_world("pool.replicas=1")
    world.driver.at(0.05, lambda: send(world, 0, signal.SIGKILL))
    statuses = run(world, backend)
    assert "failed" in statuses.values()
    assert {row[12] for row in world.log.requests if row[11] == "failed"} == {"no replica of pool 'default' is up"}


@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize("seed", range(RUNS))
def test_whatever_dies_and_hangs_everything_is_accounted_for(make_world: Make, seed: int) -> None:
    """Random kills and stops, of one replica or of both, replaced or not, with little memory: no hang, no leak."""
    draw = random.Random(seed)
    world, backend = make_world(
        f"seed={seed}", f"server.kv_blocks={draw.choice((30, 200))}", f"policy.fault.backoff_s={draw.choice((0, 0.2))}",
        f"pool.replicas={draw.choice((1, 2, 3))}", hang_s=0.15, restart=draw.random() < 0.7,
    )  # fmt: skip
    for _ in range(draw.randint(1, 4)):
        replica, number = draw.randrange(len(world.driver.executors)), draw.choice((signal.SIGKILL, signal.SIGSTOP))
        world.driver.at(draw.uniform(0.0, 0.25), lambda r=replica, n=number: send(world, r, n))
    if draw.random() < 0.5:
        at, victim = draw.uniform(0.0, 0.2), draw.randrange(12)
        world.driver.at(at, lambda: world.runtime.cancel(victim, world.driver.now))
    began = time.perf_counter()
    statuses = run(world, backend)
    assert time.perf_counter() - began < 10.0
    assert set(statuses.values()) <= {"finished", "failed", "cancelled"}
    check_tokens(world)
    assert all(row[12] for row in world.log.requests if row[11] == "failed"), "nobody fails without a reason"


@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize(
    ("answers", "error", "sentence"),
    [
        ('answer(Refused("no weights at x"))', BadInput, "no weights at x"),
        ('answer(Broken("a traceback"))', RuntimeError, "a worker of default/0 failed:\na traceback"),
        ("sys.exit(3)", BadInput, "ended with exit code 3 while it loaded"),
    ],
)
def test_workers_that_cannot_load_say_why(
    make_world: Make, monkeypatch: pytest.MonkeyPatch, answers: str, error: type[Exception], sentence: str
) -> None:
    monkeypatch.setattr(workers, "PROGRAM", PRETENDER.replace("answer(Ready(0.25))", answers))
    with pytest.raises(error, match=sentence):
        make_world("pool.replicas=1")


# -- what runs in a worker, here in a thread


def test_a_worker_serves_until_nobody_asks() -> None:
    ours, theirs = socket.socketpair()
    task = Task(POOL, "cpu", 0, "fp32", 0, {}, "work", ((16, 0), (8, 0)))
    channel, prompt = Channel(ours), array("q", [5, 6, 7])
    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(serve, Channel(theirs))
        channel.send(pickle.dumps(task))
        assert pickle.loads(channel.receive(30)).seconds > 0
        channel.send(encode(0, [Segment(0, prompt, [1], True)], POOL.block_size))
        done = pickle.loads(channel.receive(30))
        forked = Copies(inside=[Copy(None, 1, [1], [2])])
        channel.send(encode(0, [Segment(3, array("q", [8]), [2], True)], POOL.block_size, forked))
        after = pickle.loads(channel.receive(30))
        channel.send(encode(1, [Segment(0, prompt, [99], True)], POOL.block_size))
        broken = pickle.loads(channel.receive(30))
        channel.send(encode(0, [Segment(0, array("q", [5, -7]), [1], True)], POOL.block_size))
        refused = pickle.loads(channel.receive(30))
        channel.close()
        with pytest.raises(EOFError):
            served.result()
    theirs.close()
    assert isinstance(done, Done)
    best = [int(row.argmax()) for row in reference_logits(LLAMA, weights.draw(LLAMA), [*prompt, 8])]
    assert (done.found, after.found) == ({0: best[2]}, {0: best[3]})
    assert done.split.seconds > 0
    assert "IndexError" in broken.trace
    assert "'default' lives in worker processes, which do not have the image tokens" in refused.reason


def test_what_went_wrong_in_a_worker_is_said() -> None:
    def fail(error: Exception) -> Answer:
        raise error

    assert attempt(partial(fail, BadInput("no"))) == Refused("no")
    assert attempt(partial(fail, PeerLost("gone"))) == Parted("gone")
    with pytest.raises(EOFError):
        attempt(partial(fail, EOFError()))


# -- with torch


def test_ranks_and_replicas_in_processes_give_the_tokens_of_one(make_backend: Callable[..., TorchBackend]) -> None:
    """Two ranks do half of it, one of them is killed, and a replica in another process goes on with what it finds."""
    backend = make_backend(workers=3)
    pools = replace(POOL, name="ranks", tp=2), replace(POOL, name="heir")
    ranks, heir = (backend.executor(pool, 0, Fixed(LENGTHS)) for pool in pools)
    for executor in (ranks, heir):
        executor.connect(None)  # type: ignore[attr-defined]
    doomed, other = (Mini(executor) for executor in (ranks, heir))  # type: ignore[arg-type]
    doomed.admit(jobs())
    doomed.step(20)
    doomed.step(20)
    os.kill(ranks.crew.processes[1].pid, signal.SIGKILL)  # type: ignore[attr-defined]
    outcome = doomed.step(20)
    assert outcome.passes == 0
    assert outcome.failed
    other.live = doomed.live
    for live in other.live.values():
        live.done, live.out, live.table = 0, live.job.tokens - live.job.prompt, []
    other.drain(20)
    assert outputs(backend) == by_the_textbook()

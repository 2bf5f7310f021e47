"""Models that come and go in torch: the right weights, memory that is given back, and a cost that was measured."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from airi_sim.core.errors import BadInput
from airi_sim.core.types import Call, Plan, Request
from airi_sim.hardware.deployment import Deployment
from airi_sim.results.run import load
from airi_sim.runtime.places import Load
from airi_sim.workbench import comparison
from airi_sim.workbench.build import build_backend
from airi_sim.workbench.config import load_config, plain
from airi_sim.workbench.execute import perform
from real_backend import weights as stored
from real_backend.backend import TorchBackend
from real_backend.executor import TorchExecutor
from real_backend.loads import LoadWork, write_file
from tests.real_backend.world import LLAMA, POOL, Fixed, Ticks

pytestmark = pytest.mark.real
NAMES = ("a-0", "a-1", "a-2")
LOADER = Deployment("device", "load", None, service={"init_s": 0.0, "host_bytes": 0, "tier": "nvme"})


@pytest.fixture
def backend() -> Iterator[TorchBackend]:
    made = TorchBackend(device="cpu", cocalibrate=False, timer=Ticks())
    for name in NAMES:
        spec = replace(LLAMA, name=name)
        made.executor(replace(POOL, name=name, model=spec, devices=("device",), family="a"), 0, Fixed())
    yield made
    made.close()


def loader(backend: TorchBackend) -> tuple[TorchExecutor, LoadWork]:
    executor = backend.executor(LOADER, 0, Fixed())
    assert isinstance(executor, TorchExecutor) and isinstance(executor.work, LoadWork)
    return executor, executor.work


def plan(name: str, verb: str = "load", tier: str = "nvme", kept: tuple[str, ...] = ()) -> Plan:
    job = Load(Request(-1, 0.0, 8), Call(verb, 8), 0, 0.0)
    spot: Any = SimpleNamespace(server=SimpleNamespace(name=f"{name}/0"), model=name)
    job.spot, job.verb, job.tier, job.kept = spot, verb, tier, kept
    return Plan(9, 0.0, [(job, 8)], [job], kind=verb, prefill_tokens=8)


def run(executor: TorchExecutor, *plans: Plan) -> None:
    for one in plans:
        assert executor.finish(one, executor.start(one, 0.0)).stopped == [one.slices[0][0]]


class TestLoads:
    """From the file, from the host, and away."""

    def test_a_load_puts_the_weights_of_the_file_where_the_replica_runs(self, backend: TorchBackend) -> None:
        executor, work = loader(backend)
        run(executor, plan("a-0"), plan("a-1"))
        one, other = (work.berths[name][0].runner.model for name in NAMES[:2])
        assert not torch.equal(one.embedding, other.embedding)  # models of their own, whatever their shape
        found = stored.read(replace(LLAMA, name="a-0"), work.shelf.file(work.berths["a-0"][0].deployment))
        assert torch.equal(one.embedding, found[stored.EMBEDDING])

    def test_the_device_has_weights_of_its_own(self, backend: TorchBackend) -> None:
        """Not a view of the file or of the host's copy, which would cost nothing to bring."""
        executor, work = loader(backend)
        run(executor, plan("a-0", kept=("a-0",)))
        model, copy = work.berths["a-0"][0].runner.model, work.shelf.host["a-0"]
        assert torch.equal(model.embedding, copy[stored.EMBEDDING])
        assert model.embedding.data_ptr() != copy[stored.EMBEDDING].data_ptr()

    def test_an_unload_gives_everything_back(self, backend: TorchBackend) -> None:
        executor, work = loader(backend)
        run(executor, plan("a-0"))
        runner = weakref.ref(work.berths["a-0"][0].runner)
        kept = weakref.ref(work.berths["a-0"][0].runner.cache.layers[0])
        run(executor, plan("a-0", "unload"))
        gc.collect()
        assert runner() is None and kept() is None
        run(executor, plan("a-0"))
        assert work.berths["a-0"][0].runner is not None

    def test_the_host_keeps_what_it_is_told_to(self, backend: TorchBackend) -> None:
        executor, work = loader(backend)
        run(executor, plan("a-0", kept=("a-0",)), plan("a-1", kept=("a-0", "a-1")))
        assert set(work.shelf.host) == {"a-0", "a-1"}
        run(executor, plan("a-0", "unload", kept=("a-0", "a-1")), plan("a-0", tier="host", kept=("a-0",)))
        assert set(work.shelf.host) == {"a-0"}

    def test_files_are_gone_with_the_backend(self, backend: TorchBackend) -> None:
        executor, work = loader(backend)
        run(executor, plan("a-0"))
        file = work.shelf.file(work.berths["a-0"][0].deployment)
        assert file.is_file()
        backend.close()
        assert not file.exists()

    def test_given_weights_are_those_of_the_whole_family(self, tmp_path: Path) -> None:
        path = tmp_path / "w.safetensors"
        write_file(path, tensors := stored.draw(LLAMA, seed=7))
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in stored.read_file(path).items())
        made = TorchBackend(device="cpu", cocalibrate=False, weights={"a": str(path)})
        made.executor(
            replace(POOL, name="a-0", model=replace(LLAMA, name="a-0"), devices=("d",), family="a"), 0, Fixed()
        )
        executor, work = loader(made)
        executor.bring(plan("a-0").slices[0][0])
        assert torch.equal(work.berths["a-0"][0].runner.model.embedding, tensors[stored.EMBEDDING])
        made.close()

    def test_samples_of_loads_and_unloads_are_taken_beside_the_run(self) -> None:
        made = TorchBackend(device="cpu", cocalibrate=True, timer=Ticks())
        deployment = replace(POOL, name="a-0", model=replace(LLAMA, name="a-0"), devices=("d",), family="a")
        made.executor(deployment, 0, Fixed())
        tiers = replace(LOADER, service={"init_s": 0.0, "host_bytes": 1e9, "tier": "nvme"})
        executor: Any = made.executor(tiers, 0, Fixed())
        before = {name: len(samples) for name, samples in executor.probe.beside.items()}
        run(executor, plan("a-0", kept=("a-0",)))
        after = {name: len(samples) for name, samples in executor.probe.beside.items()}
        assert after == {name: n + 1 + (name == "unload") for name, n in before.items()}
        assert set(after) == {"load_nvme", "load_host", "unload"}
        assert set(executor.work.shelf.host) == {"a-0"}  # as the run left it
        made.close()


ZOO = (
    "backend=torch", "experiment=models", "pools={tiny: {copies: 4, device: device}}", "memory.bytes=4.9e+7",
    "workload.n=30", "workload.input.mean=16", "workload.input.max=64", "workload.output.mean=4",
    "workload.output.max=8",
)  # fmt: skip
"""Room for two of four."""


class TestTwoWorlds:
    """The same loads at the same moments, when what was measured is replayed."""

    def test_a_replay_loads_and_evicts_the_same(self, tmp_path: Path) -> None:
        config = plain(load_config([*ZOO, "backend.cocalibrate=false", "memory.host_bytes=3.3e+7", "workload.rate=40"]))
        world = perform(config, tmp_path, build_backend(config), "")
        choices = [row[4] for row in world.log.decisions if row[4].startswith(("load", "unload"))]
        assert len(choices) > 20
        found = comparison.replay(config, world)
        assert found.parity.identical, str(found.parity)
        assert found.apart_s == 0

    def test_compare_predicts_loads_from_samples(self, tmp_path: Path) -> None:
        config = plain(load_config([*ZOO, "compare.repeat=false", "workload.rate=2"]))
        found = comparison.compare_one("", config, tmp_path)
        assert found.parity.identical and found.loads is not None
        sim, measured = (load(tmp_path / name).summary["loads"] for name in ("sim", "measured"))
        assert sim["count"] > 10 and measured["count"] > 10
        assert sim["s"]["mean"] == pytest.approx(measured["s"]["mean"], rel=0.5)  # machines of tests are not quiet

    def test_memory_has_to_be_named(self, tmp_path: Path) -> None:
        config = plain(load_config([*ZOO, "memory.bytes=null"]))
        with pytest.raises(BadInput, match=r"memory\.bytes"):
            perform(config, tmp_path, build_backend(config), "")

"""Several models on one device, from the command line: what is loaded, what is refused, and what is said of it."""

from __future__ import annotations

import pyarrow.parquet as parquet
import pytest

from airi_sim.results.run import load
from tests.workbench.conftest import Done, Run

ZOO = (
    "pools={zoo: {copies: 4, device: gpu, server: {kv_blocks: 64}}}", "memory.bytes=2.2e7", "workload.models=1.0",
    "workload.n=60", "workload.input.max=200", "workload.output.max=20",
)  # fmt: skip
"""Room for two of four models of 8 MB, each with 2 MB of KV."""


def column(done: Done, table: str, name: str) -> list[object]:
    found: list[object] = parquet.read_table(done.folder / f"{table}.parquet")[name].to_pylist()
    return found


class TestRuns:
    """What comes out."""

    def test_models_come_and_go(self, airi: Run) -> None:
        done = airi(*ZOO, "policy/placement=lru_swap")
        assert done.code == 0, done.err
        summary = load(done.folder).summary
        assert summary["requests"]["finished"] == 60
        loads = summary["loads"]
        assert loads["count"] > 4 and loads["unloads"] >= loads["count"] - 2
        assert loads["bytes"] == loads["count"] * 8_000_000
        assert loads["cold"] >= loads["count"]
        assert loads["cold_s"]["mean"] > 0 and loads["s"]["mean"] > 0
        choices = [c for c in column(done, "decisions", "choice") if str(c).startswith(("load", "unload"))]
        assert len(choices) == loads["count"] + loads["unloads"]
        assert set(column(done, "requests", "model")) == {"zoo-0", "zoo-1", "zoo-2", "zoo-3"}

    def test_static_serves_what_fits_and_says_so(self, airi: Run) -> None:
        done = airi(*ZOO)
        assert load(done.folder).summary["loads"]["count"] == 0
        rejected = {
            model
            for model, status in zip(column(done, "requests", "model"), column(done, "requests", "status"), strict=True)
            if status == "rejected"
        }
        assert rejected == {"zoo-2", "zoo-3"}
        assert "found no room in memory" in done.out

    def test_slower_tiers_make_colder_starts(self, airi: Run) -> None:
        seconds = {}
        for tier in ("nvme", "store"):
            done = airi(*ZOO, "policy/placement=lru_swap", f"memory.tier={tier}", "memory.init_s=0.5")
            seconds[tier] = load(done.folder).summary["loads"]["s"]["mean"]
        assert 0.5 < seconds["nvme"] < seconds["store"]

    def test_a_host_that_keeps_copies_loads_faster(self, airi: Run) -> None:
        cold = load(airi(*ZOO, "policy/placement=lru_swap", "memory.tier=store").folder).summary["loads"]["s"]
        kept = load(
            airi(*ZOO, "policy/placement=lru_swap", "memory.tier=store", "memory.host_bytes=1e9").folder
        ).summary["loads"]["s"]
        assert kept["p50"] < cold["p50"] and kept["max"] == pytest.approx(cold["max"])

    def test_replicas_of_a_pool_lie_on_several_devices(self, airi: Run) -> None:
        more = (
            "memory.bytes={a: 1.1e7, b: 1.1e7}",
            "workload.n=20",
            "workload.input.max=200",
            "workload.output.max=20",
        )
        done = airi("pools={m: {replicas: 2, device: [a, b], server: {kv_blocks: 64}}}", *more)
        assert set(column(done, "jobs", "status")) == {"finished"}
        assert set(column(done, "jobs", "server")) == {"m/0", "m/1"}

    def test_a_run_without_shared_devices_knows_nothing_of_it(self, airi: Run) -> None:
        done = airi("workload.n=10")
        assert load(done.folder).summary["loads"]["count"] == 0
        assert set(column(done, "plans", "kind")) == {"pass"}


class TestBadInput:
    """One sentence that says what to do."""

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (("memory.bytes=1e6",), "needs 1.01e+07 bytes for weights and KV"),
            (("memory.bytes={other: 1e9}",), "unknown device in memory.bytes 'gpu'"),
            (("memory.bytes=-1",), "memory.bytes"),
            (("memory.tier=host",), "one of nvme, store"),
            (("workload.models={zoo-9: 1}",), "unknown model in workload.models 'zoo-9'"),
            (("workload.models=-1",), "workload.models"),
            (("pools={zoo: {copies: 4, device: gpu}}",), "server.kv_blocks"),
            (
                ("pools={zoo: {copies: 4, device: zoo-1, server: {kv_blocks: 64}}}",),
                "the name of a pool and of a device",
            ),
            (
                ("pools={a: {device: gpu, server: {kv_blocks: 64}}, b: {device: gpu, server: {kv_blocks: 64}}}",),
                "copies",
            ),
            (("pools={zoo: {copies: 2}, zoo-1: {}}",), "rename one"),
            (("policy/placement=lru",), "unknown policy/placement 'lru'"),
        ],
    )
    def test_it_is_named(self, airi: Run, words: tuple[str, ...], says: str) -> None:
        kept = [word for word in ZOO if word.partition("=")[0] not in {one.partition("=")[0] for one in words}]
        assert says in airi(*kept, *words).sentence

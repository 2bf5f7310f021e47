"""Services in whole runs: every built-in program in both worlds, and decisions that do not depend on the world."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import airi_sim
from airi_sim.workbench.cli import main
from airi_sim.workload.programs import CALLS
from tests.workbench.test_two_worlds import comparison, measure

SMALL = (
    "workload.n=12", "workload.rate=60", "workload.input.mean=20", "workload.output.mean=8",
    "pool.replicas=1", "server.kv_blocks=80",
    "services.search.service.vectors=400", "services.search.service.index=ivf", "services.features.service.keys=300",
    "services.features.service.cache_entries=40", "services.features.server.max_num_seqs=2",
)  # fmt: skip


@pytest.mark.parametrize("name", sorted(CALLS))
def test_a_program_runs_on_its_services(name: str, tmp_path: Path) -> None:
    run = airi_sim.run(
        ["workload.n=10", "workload.input.mean=60", f"workload.program={name}", f"hydra.run.dir={tmp_path}"]
    )
    assert set(run.requests["status"]) == {"finished"}
    assert set(run.jobs["kind"]) == {"generate", *CALLS[name]}
    assert {section["kind"] for section in run.summary["services"].values()} == set(CALLS[name])
    assert ("features" in CALLS[name]) == any("hit_rate" in one for one in run.summary["services"].values())


def test_an_answer_reads_chunks_of_the_size_that_the_pool_has(tmp_path: Path) -> None:
    """Larger ones would overwrite the question, and cached blocks would speak for tokens that are not there."""
    words = ["workload.n=5", "workload.program=rag", "services.search.service.chunk_tokens=90"]
    jobs = airi_sim.run([*words, f"hydra.run.dir={tmp_path}"]).jobs.set_index("request")
    answers, questions = (jobs[jobs["kind"] == kind]["tokens_in"] for kind in ("generate", "embed"))
    assert set(answers - questions) == {4 * 90}


def test_a_cache_of_everything_finds_all_but_the_first(tmp_path: Path) -> None:
    small = ["workload.n=60", "workload.program=recommend", "services.features.service.keys=3"]
    run = airi_sim.run([*small, f"hydra.run.dir={tmp_path}"])
    asked = run.jobs[run.jobs["kind"] == "features"]
    assert asked["cached_tokens"].sum() == asked["tokens_in"].sum() - 3
    assert run.summary["services"]["features"]["hit_rate"] == pytest.approx(1 - 3 / (9 * 60))


def test_a_policy_of_the_group_keeps_the_features(tmp_path: Path) -> None:
    small = ["workload.n=40", "workload.program=recommend", "services.features.service.cache_entries=20"]
    run = airi_sim.run([*small, "services.features.policy.cache=lfu", f"hydra.run.dir={tmp_path}"])
    chosen = run.decisions[run.decisions["choice"].str.startswith("forget")]
    assert set(chosen["policy"]) == {"Lfu"}


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("services.search.service.index=hnsw", "flat or ivf"),
        ("services.search.service={vectors: 100, width: 8, index: ivf, lists: 4, nprobe: 9}", "nprobe=9 of lists=4"),
        ("services.search.service.nprobe=4", "nprobe and lists are of an inverted file"),
        ("services.features.service.cache_ttl_s=0", "seconds above 0"),
        ("services.features.service.skew=-1", "a number from 0"),
        ("services.features.service.lists=x", "services.features.service.lists"),
    ],
)
def test_what_cannot_be_is_refused(
    override: str, says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code = main(["run", "workload.n=3", "workload.program=recommend", override, f"hydra.run.dir={tmp_path / 'r'}"])
    assert code == 2
    assert says in capsys.readouterr().err


@pytest.mark.real
class TestTwoWorlds:
    """The measured durations in the simulator."""

    @pytest.mark.parametrize("name", ["guarded", "multimodal"])
    def test_decisions_are_the_same(self, name: str, tmp_path: Path) -> None:
        seeing = ("model.config.hidden_size=256",) if name == "multimodal" else ()
        config, world = measure(tmp_path, f"workload.program={name}", *SMALL, *seeing)
        assert {row[2] for row in world.log.jobs} == {"generate", *CALLS[name]}
        assert {row[11] for row in world.log.requests} == {"finished"}
        found = comparison.replay(config, world)
        assert found.parity.identical, str(found.parity)
        assert found.apart_s == 0

    def test_the_cache_log_is_the_same(self, tmp_path: Path) -> None:
        """Found and forgotten keys are decisions of the server, so a replay has them too. Recall is measured beside."""
        config, world = measure(tmp_path, "workload.program=recommend", *SMALL)
        assert {row[2] for row in world.log.jobs} == {"generate", *CALLS["recommend"]}
        logged = [row[4].split()[0] for row in world.log.decisions if row[1] == "features/0"]
        assert logged.count("found") == 12
        assert logged.count("forget") > 3
        found = comparison.replay(config, world)
        assert found.parity.identical, str(found.parity)
        assert found.parity.total == len(world.log.decisions)
        assert found.apart_s == 0
        search: dict[str, Any] = json.loads((tmp_path / "summary.json").read_text())["services"]["search"]
        assert 0 < search["recall"] <= 1
        assert search["recall_clustered"] > 0.9
        assert (search["queries"], search["k"]) == (12, 8)

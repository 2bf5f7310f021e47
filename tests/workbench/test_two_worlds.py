"""One policy in two worlds: replay parity, the verbs that measure, and anybody's class on the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest

from airi_sim.results.run import load
from airi_sim.workbench import comparison
from airi_sim.workbench.build import World, build_backend
from airi_sim.workbench.cli import main
from airi_sim.workbench.compared import load_comparison, load_comparisons
from airi_sim.workbench.config import load_config, plain
from airi_sim.workbench.execute import perform

pytestmark = pytest.mark.real
NANO = "validate=parity"  # two replicas of a very small model, memory short, shared prefixes
COCALIBRATE = "backend.cocalibrate=true"
Main = Callable[..., tuple[int, str, str]]


def measure(folder: Path, *overrides: str) -> tuple[dict[str, Any], World]:
    """A measured run of the nano config, and the config as it ran."""
    config = plain(load_config([NANO, *overrides]))
    world = perform(config, folder, build_backend(config), "")
    return comparison.pin_memory(config, world), world


def choices(world: World, word: str) -> int:
    return sum(row[4].startswith(word) for row in world.log.decisions)


@pytest.fixture
def airi(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Main:
    """The command: exit code, standard output and standard error."""
    monkeypatch.setattr(sys, "path", sys.path[:])

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(list(words))
        found = capsys.readouterr()
        return code, found.out, found.err

    return run


class TestReplay:
    """The measured durations in the simulator: the same decisions, and the same floats."""

    def test_three_thousand_passes_with_preemptions_and_prefix_hits(self, tmp_path: Path) -> None:
        config, world = measure(tmp_path, "workload.rate=inf")  # all at once: memory is short however fast the machine
        assert sum(server.passes for server in world.runtime.servers) >= 3000
        assert choices(world, "preempt") > 50
        assert sum(row[12] for row in world.log.jobs) > 1000
        found = comparison.replay(config, world)
        assert found.parity.identical, str(found.parity)
        assert found.parity.total > 1500
        assert found.apart_s == 0

    def test_a_program_with_services(self, tmp_path: Path) -> None:
        more = ("workload.program=rag", "workload.n=60", "workload.rate=60", "pool.replicas=1", "server.kv_blocks=80")
        config, world = measure(tmp_path, *more)
        assert {row[2] for row in world.log.jobs} == {"embed", "search", "generate"}
        found = comparison.replay(config, world)
        assert found.parity.identical, str(found.parity)
        assert found.apart_s == 0

    def test_jobs_that_wait_at_the_gateway(self, tmp_path: Path) -> None:
        more = ("policy/admission=token_bucket", "policy.admission.rate=5000", "policy.admission.capacity=400")
        config, world = measure(tmp_path, *more, "workload.n=120")
        assert choices(world, "later") > 20
        found = comparison.replay(config, world)
        assert found.parity.identical, str(found.parity)
        assert found.apart_s == 0

    def test_a_server_that_died(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The pass that was cut off was measured too: it must not shift the durations after it."""
        build = comparison.build

        def dying(*args: Any) -> World:
            world = build(*args)
            for at in (0.05, 0.1, 0.15, 0.2, 0.25):
                world.driver.at(at, lambda at=at: world.runtime.server_down(0, at))
                world.driver.at(at + 0.02, lambda at=at: world.runtime.server_up(0, at + 0.02))
            return world

        monkeypatch.setattr(comparison, "build", dying)
        monkeypatch.setattr("airi_sim.workbench.execute.build", dying)
        config, world = measure(tmp_path, "workload.n=120", "workload.rate=400")
        assert choices(world, "again") > 0
        found = comparison.replay(config, world)
        assert found.parity.identical, str(found.parity)
        assert found.apart_s == 0

    def test_other_durations_part_the_runs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        config, world = measure(tmp_path, "workload.n=60")
        slower = {name: [3 * s for s in seconds] for name, seconds in comparison.durations(world.backend).items()}
        monkeypatch.setattr(comparison, "durations", lambda _: slower)
        found = comparison.replay(config, world)
        assert not found.parity.identical
        assert "first divergence at" in str(found.parity)
        assert found.apart_s > 0


class TestVerbs:
    """airi calibrate, validate and compare."""

    def test_validate_parity(self, airi: Main, tmp_path: Path) -> None:
        small = ("workload.n=60", "~parity.settings.steady", "++parity.settings.burst.workload.n=70")
        code, out, _ = airi("validate", NANO, *small, f"hydra.run.dir={tmp_path}")
        assert code == 0
        checks = json.loads((tmp_path / "checks.json").read_text())
        assert [check["passed"] for check in checks] == [True] * 4
        assert f"{checks[0]['limit']:,}/{checks[0]['limit']:,} decisions identical" in out
        burst, swap = load(tmp_path / "burst"), load(tmp_path / "swap")
        assert (len(burst.requests), len(swap.requests), burst.source) == (70, 60, "torch")
        assert burst.summary["preemptions"] > 0
        assert swap.config["server"]["swap_bytes"] == 1e6 and not burst.config["server"]["swap_bytes"]

    def test_validate_parity_fails_aloud(self, airi: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real = comparison.durations
        monkeypatch.setattr(comparison, "durations", lambda w: {n: [3 * x for x in s] for n, s in real(w).items()})
        words = (NANO, "parity.settings=null", "workload.n=60", f"hydra.run.dir={tmp_path}")
        code, out, _ = airi("validate", *words)
        assert code == 1
        assert "FAIL  replay parity" in out
        assert "first divergence at" in out
        assert not json.loads((tmp_path / "checks.json").read_text())[0]["passed"]

    def test_calibrate_then_simulate_on_the_profile(self, airi: Main, tmp_path: Path) -> None:
        small = ("model=tiny", "server.max_num_seqs=4", "server.max_num_batched_tokens=64", "server.kv_blocks=64")
        path = tmp_path / "deep" / "device.json"
        wanted = ("calibrate.samples=40", f"calibrate.path={path}", f"hydra.run.dir={tmp_path / 'c'}")
        code, out, _ = airi("calibrate", *small, *wanted)
        assert code == 0
        assert f"profile: {path}" in out
        assert json.loads(path.read_text())["kinds"]["generate"]["samples"] == 40
        device = ("accelerator=profile", f"accelerator.path={path}", "precision=fp32", "workload.n=20")
        code, _, _ = airi("run", *device, *small, f"hydra.run.dir={tmp_path / 'r'}")
        assert code == 0
        assert load(tmp_path / "r").summary["provenance"]["calibrated"] is True
        code, _, err = airi("compare", NANO, f"compare.profile={path}", f"hydra.run.dir={tmp_path / 'x'}")
        assert (code, "measured with model tiny" in err) == (2, True)

    def test_calibrate_measures_the_services_of_a_program(self, airi: Main, tmp_path: Path) -> None:
        short = ("workload.program=rag", "calibrate.samples=5", "services.embed.server.max_num_seqs=2")
        code, _, _ = airi("calibrate", NANO, *short, f"hydra.run.dir={tmp_path}")
        assert code == 0
        kinds = json.loads((tmp_path / "profile.json").read_text())["kinds"]
        assert set(kinds) == {"generate", "embed", "search"}

    def test_compare(self, airi: Main, tmp_path: Path) -> None:
        sets = "compare.policies={a: {router: jsq}, b: {queue: sjf}}"
        overrides = (NANO, COCALIBRATE, "workload.n=60", "workload.rate=100", "compare.repeat=false", sets)
        code, out, _ = airi("compare", *overrides, f"hydra.run.dir={tmp_path}")
        assert code == 0
        assert out.count("decisions identical") == 2
        checks = json.loads((tmp_path / "checks.json").read_text())
        assert [check["figure"] for check in checks[::2]] == [100.0, 100.0]
        assert all(0 < check["figure"] < 60 for check in checks[1::2])
        assert (tmp_path / "report.html").is_file()
        kept = load_comparisons(tmp_path)
        assert [one.name for one in kept] == ["a", "b"]
        assert [one.mean_error for one in kept] == [check["figure"] for check in checks[1::2]]
        assert all(one.parity.identical and one.repeat is None for one in kept)
        assert all(0 <= one.floors["self-fit"] < 60 and abs(one.level_pct or 99) < 60 for one in kept)
        assert out.count("beside it: self-fit") == 2

    def test_compare_keeps_the_profile_it_was_given(self, airi: Main, tmp_path: Path) -> None:
        short = (NANO, "workload.n=20", "compare.repeat=false")
        assert airi("compare", *short, COCALIBRATE, f"hydra.run.dir={tmp_path / 'one'}")[0] == 0
        given = tmp_path / "one" / "profile.json"
        assert airi("compare", *short, f"compare.profile={given}", f"hydra.run.dir={tmp_path / 'two'}")[0] == 0
        content = json.loads(given.read_text())
        given.unlink()
        assert load_comparisons(tmp_path / "two")[0].profile == content

    def test_a_second_measurement_of_an_earlier_command_is_left_out(self, airi: Main, tmp_path: Path) -> None:
        words = (NANO, COCALIBRATE, "workload.n=10", f"hydra.run.dir={tmp_path}")
        assert "noise" in airi("compare", *words)[1].splitlines()[1]
        assert load_comparison(tmp_path, "").repeat is not None
        assert "noise" not in airi("compare", *words, "compare.repeat=false")[1].splitlines()[1]

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (("validate",), "validate=parity"),
            (("validate", "validate=partiy"), "did you mean 'parity'"),
            (("validate", NANO, "backend=sim"), "backend=torch"),
            (("validate", NANO, "+parity.settings.a.sever.kv_blocks=9"), "did you mean 'server'"),
            (("validate", NANO, "backend.clock=wall"), "backend.clock=work"),
            (("compare", "experiment=quickstart", "backend=sim"), "backend=torch"),
            (("compare", "experiment=quickstart", "backend.clock=wall"), "backend.clock=work"),
            (("compare", NANO, COCALIBRATE, "compare.policies={a: {rooter: jsq}}"), "rooter"),
            (("compare", NANO, COCALIBRATE, "compare.policies={a: jsq}"), "compare.policies.a"),
            (("compare", NANO), "backend.cocalibrate=true"),
            (("compare", NANO, "compare.profile=nowhere.json"), "nowhere.json"),
            (("calibrate", "backend=sim"), "backend=torch"),
            (("calibrate", "calibrate.samples=0"), "a whole number from 1"),
            (("calibrate", "calibrate.seconds=-1"), "seconds above 0"),
        ],
    )
    def test_bad_input(self, airi: Main, tmp_path: Path, words: Sequence[str], says: str) -> None:
        code, out, err = airi(*words, f"hydra.run.dir={tmp_path / 'x'}")
        assert (code, out) == (2, "")
        assert err.startswith("airi: ")
        assert says in err
        assert not (tmp_path / "x").exists()


class TestMeasurements:
    """What each pass took, in the folder of a measured run."""

    def test_every_pass_has_its_parts(self, tmp_path: Path) -> None:
        _, world = measure(tmp_path, "workload.n=30")
        rows = parquet.read_table(tmp_path / "passes.parquet").to_pylist()
        assert len(rows) == len(world.log.plans)
        for row in rows:
            assert row["prep_s"] + row["forward_s"] + row["sample_s"] == pytest.approx(row["seconds"])
        assert {row["server"] for row in rows} == {"default/0", "default/1"}


MY_ROUTER = '''
class LongApart:
    """Long prompts to the last replica, the others in turn over the rest."""

    def __init__(self, tokens: int = 100):
        self.tokens, self.turn = tokens, 0

    def route(self, job, view, now):
        if job.tokens > self.tokens:
            return view.n - 1
        self.turn = (self.turn + 1) % (view.n - 1)
        return self.turn
'''


def test_twelve_lines_outside_the_package_run_in_both_worlds(
    airi: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "long_apart.py").write_text(MY_ROUTER)
    monkeypatch.chdir(tmp_path)
    mine = ("policy.router._target_=long_apart.LongApart", "policy.router.tokens=40")
    small = ("model=tiny", "precision=fp32", "pool.replicas=3", "server.kv_blocks=200", "server.max_num_seqs=8")
    load_ = ("workload.n=12", "workload.rate=50", "workload.input.mean=50", "workload.output.max=4")
    taken = []
    for world in (("accelerator=cpu", "serving=torch"), ("backend=torch",)):
        folder = tmp_path / world[0].replace("=", "-")
        code, _, err = airi("run", *world, *mine, *small, *load_, f"hydra.run.dir={folder}")
        assert code == 0, err
        run = load(folder)
        own = run.decisions[run.decisions["policy"] == "LongApart"]
        taken.append(list(zip(own["job"], own["choice"], strict=True)))
        assert set(run.requests["status"]) == {"finished"}
    assert taken[0] == taken[1]
    assert len(taken[0]) == 12
    assert {choice for _, choice in taken[0]} == {"default/0", "default/1", "default/2"}

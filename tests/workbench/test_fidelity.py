"""Recorded runs, scored: how errors add up, how names are found, and a few runs within what docs claim."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from airi_sim.core.errors import BadInput
from airi_sim.core.types import Item, Request
from airi_sim.workbench.config import load_config, plain
from airi_sim.workbench.fidelity import edges, sim2real, splitwise
from airi_sim.workbench.fidelity.command import checks
from airi_sim.workbench.fidelity.names import accelerator_name, model_node, nearest
from airi_sim.workbench.fidelity.pictures import draw
from airi_sim.workbench.fidelity.rows import Options, Row
from airi_sim.workbench.fidelity.scores import FAILED, peers, scores
from airi_sim.workbench.fidelity.simulate import setting, simulate
from airi_sim.workbench.verbs import validate

NAN = float("nan")


@pytest.fixture(scope="module")
def config():
    return plain(load_config(["validate=fidelity"]))


def row(run="a", metric="e2e_mean", measured=1.0, predicted=1.1, **more):
    return Row(run, "llama", "h100-sxm", 1, "chat", metric, measured, predicted, dataset="d", **more)


@pytest.fixture
def recorded(data_dir):
    if not (data_dir / sim2real.NEEDS[0]).is_file():
        pytest.skip(f"{sim2real.NEEDS[0]} is not there")
    return {run.summary["exp_id"] if run.requests is None else run.name: run for run in sim2real.experiments(data_dir)}


class TestScores:
    """Of rows."""

    def test_median_and_mean_over_runs_and_median_over_cells(self):
        rows = [row("a", predicted=1.1), row("b", predicted=0.7), row("c", predicted=1.2)]
        (found,) = scores([*rows, replace(row("d", predicted=2.0), workload="code")])
        assert (found.runs, found.mean) == (4, pytest.approx(40.0))
        assert found.median == pytest.approx(25.0)
        assert found.cells == pytest.approx((20.0 + 100.0) / 2)  # the mean of the first cell, and the other
        assert found.bias == pytest.approx(15.0)

    def test_a_run_that_cannot_be_simulated_is_a_failure(self):
        (found,) = scores([row("a", predicted=1.0), row("b", predicted=NAN)])
        assert (found.mean, found.median) == (FAILED / 2, FAILED / 2)

    def test_modes_and_metrics_are_apart(self):
        rows = [row(), row(mode="held_out"), row(metric="ttft_mean")]
        assert [score.name for score in scores(rows)] == ["d e2e_mean", "d held_out e2e_mean", "d ttft_mean"]

    def test_a_check_for_each_limit(self):
        rows = [replace(row(predicted=1.07), dataset="sim2real", mode="effective")]
        found = {check["name"]: check["passed"] for check in checks(scores(rows))}
        assert found == {"sim2real effective e2e_mean median": False, "sim2real effective e2e_mean mean": True}

    def test_pictures_of_anything(self, tmp_path):
        rows = [row("a"), row("b", predicted=NAN), row("c", metric="ttft_p90")]
        files = draw(rows, tmp_path)
        assert [file.name for file in files] == ["d-agreement.png", "d-errors.png"]
        assert all(file.stat().st_size > 5000 for file in files)
        draw([row(predicted=NAN)], tmp_path)


class TestNames:
    """Of models and accelerators in recordings."""

    KNOWN = ("meta-llama/Meta-Llama-3.1-8B", "meta-llama/Meta-Llama-3.1-70B", "Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-8B")

    @pytest.mark.parametrize(
        ("name", "found"),
        [
            ("meta-llama/Llama-3.1-8B-Instruct", KNOWN[0]),
            ("RedHatAI/Llama-3.1-70B-Instruct-FP8-dynamic", KNOWN[1]),
            ("Qwen/Qwen3-30B-A3B-Instruct-2507", KNOWN[2]),
            ("Qwen/Qwen3-8B", KNOWN[3]),
            ("Qwen/Qwen3-14B", None),
            ("google/gemma-2-9b", None),
        ],
    )
    def test_the_same_architecture_or_none(self, name, found):
        assert nearest(name, self.KNOWN) == found

    @pytest.mark.parametrize(
        ("name", "choice"),
        [
            ("H100-80GB-HBM3-SXM", "h100-sxm"), ("A100-80GB", "a100-sxm-80"), ("L40S-48GB", "l40s"),
            ("NVIDIA H200", "h200-sxm"), ("RTX PRO 6000", "rtx-pro-6000"),
        ],
    )  # fmt: skip
    def test_accelerators(self, name, choice):
        assert accelerator_name(name) == choice

    def test_unknown_ones_say_what_to_do(self, tmp_path):
        with pytest.raises(BadInput, match="is none of conf/accelerator"):
            accelerator_name("Cerebras WSE-3")
        with pytest.raises(BadInput, match=r"put its config\.json into"):
            model_node("nobody/Nothing-1B", tmp_path)


class TestSimulation:
    """Of requests that are there already."""

    def test_times_in_the_order_of_the_items(self, config):
        items = [Item(Request(i, i / 10, 50), 5 + i) for i in range(6)]
        times = simulate(setting(config, model="tiny", **{"server.kv_blocks": 500}), items)
        assert times.output.tolist() == [5, 6, 7, 8, 9, 10]
        assert np.allclose(times.arrival, [i / 10 for i in range(6)])
        assert (times.ttft > 0.006).all() and (times.e2e > times.ttft).all()  # the API path of vLLM is 6.7 ms
        assert np.allclose(times.tpot, (times.e2e - times.ttft) / (times.output - 1))

    def test_a_setting_is_a_copy(self, config):
        other = setting(config, serving="sglang", precision="fp8", **{"pool.tp": 2})
        assert (other["serving"]["name"], other["precision"], other["pool"]["tp"]) == ("sglang", "fp8", 2)
        assert (config["serving"]["name"], config["precision"], config["pool"]["tp"]) == ("vllm", "bf16", 1)


class TestSim2real:
    """Runs of vLLM under load."""

    def test_a_stage_has_exactly_its_requests_and_prompts_repeat(self, recorded):
        run = recorded["16"]
        items = list(sim2real.items(run, "effective", seed=3))
        arrivals = np.array([item.request.arrival for item in items])
        gaps = np.diff(arrivals)
        assert len(items) == 4800 + 12000 and gaps[4799] > sim2real.IDLE_S
        assert gaps[:4799].mean() == pytest.approx(1 / 8, rel=0.05) and gaps[4800:].mean() == pytest.approx(
            0.05, rel=0.05
        )
        first, again, other = items[0].request, items[100].request, items[10].request
        assert first.prefix == again.prefix and first.prefix[6:] != other.prefix[6:]
        assert len(first.prefix) == first.tokens // 16 + 1

    def test_requested_prefixes_share_the_system_prompt_only(self, recorded):
        items = list(sim2real.items(recorded["16"], "requested", seed=0))
        first, again = items[0].request.prefix, items[100].request.prefix
        assert first[:6] == again[:6] and not set(first[6:]) & set(again[6:])

    def test_recorded_requests_are_replayed_as_they_were(self, recorded):
        (run,) = [run for name, run in recorded.items() if str(name).endswith("codegen") and run.requests is not None]
        items = list(sim2real.items(run, "effective", seed=0))
        assert [item.request.tokens for item in items] == run.requests.input_tokens.tolist()
        assert items[-1].request.arrival == pytest.approx(run.requests.arrival_us.iloc[-1] / 1e6)

    def test_conf_holds_what_all_stages_show(self, recorded, data_dir, config):
        stages = [stage for run in recorded.values() for stage in sim2real.stages_of(run, data_dir, config)]
        before, after = stages[0].deployment.serving, edges.fitted(stages)
        assert after.step_s == pytest.approx(before.step_s, rel=0.05)
        assert after.streamed_s == pytest.approx(before.streamed_s, rel=0.2)
        assert after.request_s == pytest.approx(before.request_s, rel=0.05)

    def test_a_few_runs_and_what_they_would_be_without_their_model(self, recorded, data_dir, config):
        names = ("55-", "66-", "65-")  # three models on two accelerators, few requests
        options = Options(config, seeds=1, runs=names, modes=("effective", "held_out"))
        found = {score.name: score for score in scores(sim2real.score(data_dir, options, lambda _: None))}
        assert {score.runs for score in found.values()} == {3}
        for mode in options.modes:
            assert found[f"{mode} e2e_mean"].mean < 7
            assert found[f"{mode} ttft_mean"].median < 15

    def test_a_run_of_an_unknown_model_fails_alone(self, recorded, data_dir, config, capsys):
        strange = replace(recorded["55"], summary={**recorded["55"].summary, "model": "nobody/Nothing-1B"})
        rows = sim2real._scored((strange, "effective", "vllm"), data_dir, Options(config, seeds=1))
        assert all(row.predicted != row.predicted for row in rows) and "Nothing-1B" in capsys.readouterr().err

    def test_peers_on_the_same_runs(self, recorded, data_dir):
        rows = [row(run=recorded["16"].name), row(run=recorded["16"].name, metric="itl_mean")]
        found = peers(data_dir, rows)
        assert {score.metric for score in found} == {"e2e_mean", "itl_mean"} and {score.runs for score in found} == {1}
        table = pd.read_csv(data_dir / "fidelity/peer_records_long.csv")
        table = table[(table.exp == recorded["16"].name) & (table.stage == -1) & (table.metric == "e2e_mean")]
        expected = dict(zip(table.simulator, table.ape_pct, strict=True))
        assert {s.mode: pytest.approx(s.mean) for s in found if s.metric == "e2e_mean"} == expected


def test_splitwise_by_accelerator(data_dir, config):
    if not (data_dir / splitwise.NEEDS[0]).is_file():
        pytest.skip(f"{splitwise.NEEDS[0]} is not there")
    rows = splitwise.score(data_dir, Options(config), lambda _: None)
    for name in splitwise.ACCELERATORS.values():
        here = [row for row in rows if row.accelerator == name]
        found = {score.metric: score for score in scores(here)}
        assert found["token"].mean < 5 and found["prompt"].median < 6


class TestCommand:
    """airi validate validate=fidelity."""

    def test_a_table_pictures_and_checks(self, data_dir, tmp_path, capsys):
        words = [
            "validate=fidelity",
            "fidelity.datasets=[splitwise]",
            f"hydra.run.dir={tmp_path}",
            f"data.dir={data_dir}",
        ]
        assert validate.command(words) == 0
        assert "splitwise" in capsys.readouterr().out
        names = {file.name for file in tmp_path.iterdir()}
        assert names == {
            "checks.json",
            "fidelity.csv",
            "splitwise-in_sample-agreement.png",
            "splitwise-in_sample-errors.png",
        }

    def test_bad_input_is_one_sentence(self, tmp_path):
        for words, wanted in (
            (["fidelity.datasets=[sim2reel]"], "did you mean 'sim2real'"),
            (["fidelity.datasets=nosuch"], "fidelity.datasets=nosuch must be a list"),
            (["fidelity.datasets=[]"], "null for all"),
            ([f"data.dir={tmp_path}"], "nothing to score"),
            ([f"data.dir={tmp_path}/nowhere"], "there is no folder"),
        ):
            with pytest.raises(BadInput, match=wanted):
                validate.command(["validate=fidelity", f"hydra.run.dir={tmp_path}/run", *words])

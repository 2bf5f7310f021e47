"""Recorded runs that are replayed: within the limits that docs/validation.md claims, calibrated on nothing of them."""

from dataclasses import replace

import numpy as np
import pytest

from airi_sim.results.columns import Columns
from airi_sim.results.metrics import summarise
from airi_sim.workbench.build import build
from airi_sim.workbench.config import load_config, plain
from airi_sim.workbench.doubts import intervals, pools_of
from airi_sim.workbench.fidelity import replays, unseen, vtc
from airi_sim.workbench.fidelity.command import LIMITS, checks
from airi_sim.workbench.fidelity.rows import Options
from airi_sim.workbench.fidelity.scores import scores


@pytest.fixture(scope="module")
def options():
    return Options(plain(load_config(["validate=fidelity"])))


def rows_of(module, data_dir, options):
    missing = [name for name in module.NEEDS if not (data_dir / name).exists()]
    if missing:
        pytest.skip(f"{missing[0]} is not there")
    return module.score(data_dir, options, lambda _: None)


def checked(module, data_dir, options):
    """What `airi validate` judges of the rows of a data set."""
    name = module.__name__.rpartition(".")[2]
    return checks(scores(replace(row, dataset=name) for row in rows_of(module, data_dir, options)))


def test_three_hundred_requests_on_cards_fitted_to_their_op_timings(data_dir, options):
    """At 128 sequences the runs leave about 1.6 ms a pass to the host (of vllm: step_s + 128 sequence_s); what an
    accelerator needs per sequence belongs to its wave_s."""
    judged = checked(replays, data_dir, options)
    assert {check["name"] for check in judged} == {
        f"replays {card} {metric}_mean median" for card in replays.CARDS for metric in ("e2e", "tpot", "ttft")
    }
    assert [check["name"] for check in judged if not check["passed"]] == []


def test_seven_logs_calibrated_on_five_hundred_requests_of_the_eighth(data_dir, options):
    rows = rows_of(vtc, data_dir, options)
    limits = {metric: LIMITS["vtc", "", metric][0] for metric in ("total_time", "ttft_mean")}
    assert {row.run for row in rows} == {
        f"{order}_{load}" for order in ("FCFS", "VTC") for load in ("increase", "overload", "overload-multi",
                                                                    "proportional")
    } - {"FCFS_overload"}  # fmt: skip
    assert {(row.run, row.metric): row.ape for row in rows if row.ape > limits.get(row.metric, 40)} == {}


def test_conf_holds_what_the_first_five_hundred_requests_show(data_dir, options):
    log = vtc.recording(data_dir / vtc.NEEDS[0]) if (data_dir / vtc.NEEDS[0]).exists() else pytest.skip("no log")
    before, after = vtc.engine(options.config), vtc.calibrated(log, options.config)
    kernels = [config["serving"]["per_accelerator"][vtc.ACCELERATOR] for config in (before, after)]
    assert kernels[0] == pytest.approx(kernels[1], rel=0.02)
    for name in ("step_s", "prompt_s"):
        assert before["serving"][name] == pytest.approx(after["serving"][name], rel=0.02), name


def predicted_intervals(config, items):
    """[least, most] of the mean times of a run."""
    workload = {"_target_": "airi_sim.workbench.fidelity.simulate.Recorded", "items": items, "hash_block": 16}
    world = build({**config, "workload": workload})
    world.driver.run(iter(world.workload))
    summary = summarise(world.log.rows, engine={}, provenance={})
    pools = pools_of(world, Columns("plans", world.log.rows["plans"]))
    said = intervals(pools, summary, Columns("requests", world.log.rows["requests"]))
    return {name: said[name]["mean"] for name in ("ttft_s", "tpot_s", "e2e_s")}


def test_measured_means_lie_within_the_intervals(data_dir, options):
    """Of eight logs on an accelerator without timings, three means each."""
    names = sorted(path.stem for path in (data_dir / "vtc").glob("*.jsonl"))
    if not names:
        pytest.skip("the logs are not there")
    config, inside, count = vtc.engine(options.config), 0, 0
    for name in names[::3]:
        log = vtc.recording(data_dir / "vtc" / f"{name}.jsonl")
        said = predicted_intervals(config, log.items)
        ttft, e2e = log.first - log.arrival, log.finish - log.arrival
        seen = {"ttft_s": ttft.mean(), "e2e_s": e2e.mean(), "tpot_s": ((e2e - ttft) / (log.output - 1)).mean()}
        inside += sum(said[metric][0] <= value <= said[metric][1] for metric, value in seen.items())
        count += len(seen)
    assert inside >= 0.9 * count


def made_up(cost, requests=120, seed=0):
    """A log of an engine whose passes take what `cost` says: prompts alone, one at a time, decodes in between."""
    rng = np.random.default_rng(seed)
    now, running, begun, over = 0.0, [], {}, {}
    for i in range(requests):
        for _ in range(int(rng.integers(10, 30))):
            if not running:
                break
            now += cost.decode_s + cost.context_s * sum(257 + out for _, out in running)
            running = [(who, out + 1) for who, out in running]
            over |= {who: now for who, out in running if out == 256}
            running = [(who, out) for who, out in running if out < 256]
        now += cost.prompt_s + cost.prompt_token_s * 257
        begun[i] = now
        running.append((i, 1))
    done = sorted(over)
    first, finish = (np.array([times[i] for i in done]) for times in (begun, over))
    count = len(done)
    return vtc.Recording("x", ("a",) * count, first - 0.1, first, finish, np.full(count, 257), np.full(count, 256), now)


def test_observed_passes_come_back_from_a_made_up_log():
    truth = vtc.Observed(0.03, 1.2e-6, 0.06, 2e-4)
    found = vtc.observed(made_up(truth), first=100)
    assert found.decode_s == pytest.approx(truth.decode_s, rel=0.05)
    assert found.context_s == pytest.approx(truth.context_s, rel=0.2)
    whole = [one.prompt_s + 257 * one.prompt_token_s for one in (found, truth)]
    assert whole[0] == pytest.approx(whole[1], rel=0.1)


def test_products_of_accelerators_that_were_left_out(data_dir, options):
    judged = checked(unseen, data_dir, options)
    assert len(judged) == len(unseen.CARDS)
    assert [check["name"] for check in judged if not check["passed"]] == []

"""Other tools' figures, worked out by hand on three requests; and the laws that tie the tools to each other."""

from __future__ import annotations

import json

import numpy as np
import pytest

from airi_sim.core.errors import BadInput
from airi_sim.core.log import TABLES
from airi_sim.results.dialects import DIALECTS, MLPERF_LIMITS, placed
from airi_sim.results.samples import Sample
from tests.results.test_metrics import tiny


@pytest.fixture
def run(make_run):
    """Tokens at 1, 2, 4 s of a request that came at 0; one at 6 s of one that came at 5; one was rejected."""
    return make_run(toy=tiny() | {"decisions": []})


def test_vllm_by_hand(run):
    told = run.dialect("vllm", slo={"ttft_s": 1.0, "tpot_s": 1.0})
    assert {name: told[name] for name in ("completed", "failed", "total_input_tokens", "total_output_tokens")} == {
        "completed": 2, "failed": 1, "total_input_tokens": 150, "total_output_tokens": 4,
    }  # fmt: skip
    assert (told["duration"], told["request_throughput"]) == (6.0, pytest.approx(2 / 6))
    assert told["total_token_throughput"] == pytest.approx(154 / 6)
    assert told["request_goodput"] == pytest.approx(1 / 6), (
        "one token: its time per token counts as 0, within the limit"
    )
    assert [told[f"{kind}_tpot_ms"] for kind in ("mean", "median", "p99", "std")] == [1500, 1500, 1500, 0]
    assert [told[f"{kind}_itl_ms"] for kind in ("mean", "median", "std")] == [1500, 1500, 500]
    assert told["p99_itl_ms"] == pytest.approx(1990)
    assert [told[f"{kind}_e2el_ms"] for kind in ("mean", "median")] == [2500, 2500]


def test_aiperf_by_hand(run):
    told = run.dialect("aiperf")
    assert told["benchmark_duration"] == {"unit": "sec", "avg": 6.0}
    assert (told["inter_token_latency"]["avg"], told["inter_token_latency"]["count"]) == (1500, 1)
    assert (told["inter_chunk_latency"]["avg"], told["inter_chunk_latency"]["count"]) == (1500, 2)
    assert told["time_to_second_token"]["avg"] == 1000
    assert told["output_token_throughput_per_user"]["avg"] == pytest.approx(1 / 1.5)
    assert told["output_sequence_length"]["p50"] == 2
    assert told["goodput"]["avg"] is None


def test_aiperfs_rates_begin_with_the_first_request(make_run):
    rows = tiny() | {"decisions": []}
    run = make_run(toy=rows | {name: rows[name][1:2] for name in ("requests", "jobs")} | {"spans": rows["spans"][1:]})
    assert run.dialect("aiperf")["benchmark_duration"]["avg"] == 1.0
    assert run.dialect("vllm")["duration"] == 6.0


def test_mlperf_by_hand(run):
    told = run.dialect("mlperf", slo=MLPERF_LIMITS["llama-2-70b server"])
    assert told["result_first_token_99.00_percentile_latency_ns"] == 1_000_000_000
    assert told["result_99.00_percentile_latency_ns"] == 4_000_000_000
    assert told["result_50.00_percentile_latency_ns"] == 4_000_000_000, (
        "place floor(2 * .5) of (1, 4): no interpolation"
    )
    assert (told["result_validity"], told["result_min_queries_met"]) == ("INVALID", False)
    assert told["result_query_count"] == 2


@pytest.mark.parametrize(("share", "value"), [(0.5, 51), (0.99, 100), (0.9, 91), (0.0, 1), (0.999, 100)])
def test_a_loadgen_percentile_is_a_value_of_the_sample(share, value):
    assert placed(np.random.default_rng(0).permutation(np.arange(1.0, 101.0)), share) == value


def test_mlperf_is_met_only_if_everybody_was_served_in_time(make_run):
    one = tiny() | {"decisions": []}
    served = make_run("served", toy=one | {"requests": one["requests"][:2]})
    keeps, misses = {"ttft_s": 1.0, "tpot_s": 1.5}, {"ttft_s": 1.0, "tpot_s": 1.4}
    assert served.dialect("mlperf", slo=keeps)["result_perf_constraints_met"]
    assert not served.dialect("mlperf", slo=misses)["result_perf_constraints_met"]
    assert not make_run("whole", toy=one).dialect("mlperf", slo=keeps)["result_perf_constraints_met"]


def test_otel_by_hand(run):
    told = run.dialect("otel")
    first = told["gen_ai.server.time_to_first_token"]
    assert (first["count"], first["sum"], first["unit"]) == (2, 2.0, "s")
    assert dict(zip(first["explicit_bounds"], first["bucket_counts"], strict=False))[1.0] == 2, "an edge belongs below"
    chunks = told["gen_ai.client.operation.time_per_output_chunk"]
    assert (chunks["count"], chunks["bucket_counts"][-3:]) == (2, [1, 1, 0])
    assert told["gen_ai.client.token.usage{type=output}"]["sum"] == 4
    for metric in told.values():
        assert sum(metric["bucket_counts"]) == metric["count"]
        assert len(metric["bucket_counts"]) == len(metric["explicit_bounds"]) + 1


def test_gaps_of_requests_that_were_not_finished_do_not_count(make_run):
    rows = tiny() | {"decisions": []}
    cut = [(*row[:11], "cancelled", "") if row[0] == 0 else row for row in rows["requests"]]
    run = make_run(toy=rows | {"requests": cut})
    assert (run.dialect("vllm")["completed"], run.dialect("vllm")["mean_itl_ms"]) == (1, None)
    assert run.dialect("aiperf")["time_to_first_token"]["count"] == 1, "also those that got a first token"


def test_tokens_of_one_moment_came_in_one_chunk(make_run):
    rows = tiny() | {"decisions": []}
    plans = [rows["plans"][0], ("p/0", "pass", 1.0, 4.0, 1, 1, 0, 0, 8, 0, 3.0, 0),
             ("p/0", "pass", 4.0, 4.0, 1, 1, 0, 0, 8, 0, 0.0, 0), rows["plans"][2]]  # fmt: skip
    told = make_run(toy=rows | {"plans": plans}).dialect("aiperf")
    assert (told["inter_chunk_latency"]["count"], told["inter_chunk_latency"]["avg"]) == (1, 3000)


@pytest.mark.parametrize("seed", range(3))
def test_the_tools_agree_where_their_definitions_do(make_run, seed):
    run = make_run(f"run-{seed}", seed=seed)
    vllm, aiperf, otel = (run.dialect(name) for name in ("vllm", "aiperf", "otel"))
    for theirs, ours in (("time_to_first_token", "ttft"), ("inter_token_latency", "tpot"), ("request_latency", "e2el")):
        assert aiperf[theirs]["avg"] == pytest.approx(vllm[f"mean_{ours}_ms"])
        assert aiperf[theirs]["p99"] == pytest.approx(vllm[f"p99_{ours}_ms"])
    assert vllm["mean_ttft_ms"] == pytest.approx(1e3 * run.summary["ttft_s"]["mean"])
    assert vllm["p99_itl_ms"] == pytest.approx(1e3 * run.summary["itl_s"]["p99"])
    assert otel["gen_ai.server.request.duration"]["sum"] == pytest.approx(30 * vllm["mean_e2el_ms"] / 1e3)


def test_objectives_come_from_the_config_of_the_run(run):
    (run.folder / "config.yaml").write_text("slo: {ttft_s: 1.0, tpot_s: 2.0, e2e_s: null}\n")
    assert run.dialect("vllm")["request_goodput"] == pytest.approx(2 / 6)


@pytest.mark.parametrize("name", DIALECTS)
def test_an_empty_run_has_the_same_names_and_no_figures(make_run, run, name):
    empty = make_run("empty", toy={table: [] for table in TABLES}).dialect(name)
    assert empty.keys() == run.dialect(name).keys()
    assert json.dumps(empty, allow_nan=False)


def test_unknown_tools_and_limits_are_refused(run):
    with pytest.raises(BadInput, match="did you mean 'vllm'"):
        run.dialect("vlm")
    with pytest.raises(BadInput, match="did you mean 'ttft_s'"):
        run.dialect("vllm", slo={"ttft": 1.0})


def test_weights_stand_for_repeated_values():
    values, often = np.array([1.0, 2.0, 5.0]), np.array([3, 1, 2], dtype=np.int32)
    weighted, whole = Sample(values, often), Sample(np.repeat(values, often))
    assert weighted.mean_and_std() == pytest.approx(whole.mean_and_std())
    assert (weighted.count, weighted.total) == (whole.count, whole.total)

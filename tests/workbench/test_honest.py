"""Op tables to a profile to a run, on the command line; runs that leave what was measured say so, or are refused."""

import json

import numpy as np
import pytest

PRODUCTS = "gpu,gemm_dtype,m,n,k,latency_us"


@pytest.fixture
def table(tmp_path):
    """Products of an L4 at 60 % of its peak and 70 % of its bandwidth."""
    rows = []
    for m in (1, 4, 16, 64, 256, 1024):
        for n, k in ((1024, 1024), (4096, 1024), (4096, 4096), (2048, 8192)):
            seconds = 3e-6 + max(2 * m * n * k / 0.6 / 121e12, 2 * (n * k + m * k + m * n) / 0.7 / 300e9)
            rows.append(f"L4,bfloat16,{m},{n},{k},{1e6 * seconds:.4f}")
    path = tmp_path / "products.csv"
    path.write_text("\n".join([PRODUCTS, *rows]) + "\n")
    return path


def test_from_a_table_to_a_run(airi, table, tmp_path):
    profile = tmp_path / "l4.json"
    done = airi(f"calibrate.ops='{table}'", f"calibrate.path='{profile}'", verb="calibrate")
    assert done.code == 0, done.err
    assert "gemm: 24 timings" in done.out and "as l4 has them: decode" in done.out
    found = json.loads(profile.read_text())
    assert found["format"] == "airi-physics/1" and 0.5 < found["coefficients"]["e_c"] < 0.7
    run = airi("accelerator=profile", f"accelerator.path='{profile}'", "workload.n=20", small=False)
    assert run.code == 0, run.err
    summary = json.loads((run.folder / "summary.json").read_text())
    assert summary["provenance"]["calibrated"]
    assert {one["kernel"] for one in summary["provenance"]["coverage"]["lacked"]} >= {"decode", "prefill"}
    assert any("lie outside what was measured" in text for text in summary["provenance"]["warnings"])


def test_every_simulated_run_has_intervals_around_its_figures(airi):
    run = airi("accelerator=h100-sxm", "model=llama-3.1-8b", "workload.n=40", small=False)
    summary = json.loads((run.folder / "summary.json").read_text())
    counts = summary["provenance"]["coverage"]
    assert counts["calibrated"] + counts["interpolated"] + counts["extrapolated"] == summary["engine"]["passes"]
    assert 0.01 < summary["interval"]["relative"] < 0.5
    for metric in ("ttft_s", "tpot_s", "e2e_s"):
        low, high = summary["interval"][metric]["mean"]
        assert low < summary[metric]["mean"] < high


def test_the_shorthand_of_one_pool_is_not_read_in_silence_where_pools_are_named(airi):
    run = airi("pools={a: {model: tiny}}", "pool.replicas=2", "workload.n=5")
    warnings = json.loads((run.folder / "summary.json").read_text())["provenance"]["warnings"]
    assert "pool.replicas is not read where pools are named: set pools.NAME.replicas." in warnings
    plain = airi("pools={a: {model: tiny, replicas: 2}}", "workload.n=5")
    assert not any(
        "is not read" in text
        for text in json.loads((plain.folder / "summary.json").read_text())["provenance"]["warnings"]
    )


def test_a_strict_run_is_refused_where_nothing_was_measured(airi):
    sentence = airi("accelerator=a10g", "hardware.strict=true", "workload.n=5").sentence
    assert "no timings of this accelerator" in sentence and "hardware.strict=false" in sentence


def test_a_strict_run_goes_through_where_all_was_measured(airi):
    words = ("accelerator=h100-sxm", "model=llama-3.1-8b", "workload.n=20", "hardware.strict=true")
    assert airi(*words, small=False).code == 0


@pytest.mark.parametrize(
    ("words", "say"),
    [
        (["calibrate.ops=nowhere.csv"], "no op table at 'nowhere.csv'"),
        (["calibrate.ops=[]"], "calibrate.ops"),
        (["calibrate.ops=3"], "calibrate.ops=3 is not possible"),
    ],
)
def test_op_tables_that_cannot_be_read(airi, words, say):
    assert say in airi(*words, verb="calibrate").sentence


def test_a_table_of_another_device(airi, table):
    assert (
        "no timing of 'h100-sxm'" in airi(f"calibrate.ops='{table}'", "accelerator=h100-sxm", verb="calibrate").sentence
    )
    named = airi(f"calibrate.ops='{table}'", "accelerator=h100-sxm", "calibrate.device=L4", verb="calibrate")
    assert named.code == 0, named.err


def test_random_bytes_are_no_profile(airi, tmp_path):
    path = tmp_path / "profile.json"
    path.write_bytes(np.random.default_rng(0).bytes(100))
    assert airi("accelerator=profile", f"accelerator.path='{path}'", small=False).sentence

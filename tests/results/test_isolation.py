"""A client within its share beside one that asks for ten times as much: fairness figures of whole runs."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

import airi_sim
from airi_sim.core.errors import BadInput
from airi_sim.results.run import Run

SECONDS, RATES = 40.0, {"victim": 2.0, "aggressor": 20.0}


def write(path: Path, tenants: tuple[str, ...]) -> str:
    """A trace of these tenants; what each of them sends does not depend on the others."""
    rows = []
    for name in tenants:
        draw, now = random.Random(name), 0.0
        while (now := now + draw.expovariate(RATES[name])) < SECONDS:
            size = {"input_length": draw.randint(100, 800), "output_length": draw.randint(50, 300), "hash_ids": []}
            rows.append({"timestamp": 1e3 * now, "tenant": name} | size)
    path.write_text("".join(json.dumps(row) + "\n" for row in sorted(rows, key=lambda row: row["timestamp"])))
    return f"workload.path={path}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """The victim alone, and both under FCFS and under VTC."""
    folder = tmp_path_factory.mktemp("isolation")
    alone, both = write(folder / "alone.jsonl", ("victim",)), write(folder / "both.jsonl", tuple(RATES))
    words = ["workload=trace", "workload.format=airi", "server.max_num_seqs=16"]
    kinds = {"alone": [alone], "fcfs": [both], "vtc": [both, "policy/queue=vtc"]}
    return {name: airi_sim.run([*words, *more, f"hydra.run.dir={folder / name}"]) for name, more in kinds.items()}


def test_vtc_isolates_a_client_within_its_share_and_fcfs_does_not(runs):
    slower = {name: runs[name].isolation(runs["alone"]).loc["victim"] for name in ("fcfs", "vtc")}
    assert slower["vtc"]["e2e_mean"] < 1.4 and slower["vtc"]["e2e_p99"] < 1.4
    assert slower["fcfs"]["e2e_mean"] > 10


def test_who_is_isolated_is_never_far_behind(runs):
    behind = {name: runs[name].lags(window_s=10.0).max() for name in ("fcfs", "vtc")}
    assert behind["vtc"]["victim"] < 2_000 < 20_000 < behind["fcfs"]["victim"]
    assert behind["fcfs"]["aggressor"] == behind["vtc"]["aggressor"] == 0


def test_slowdown_refuses_other_requests_under_the_same_numbers(runs):
    with pytest.raises(BadInput, match="not the same requests"):
        runs["vtc"].slowdown(runs["alone"])

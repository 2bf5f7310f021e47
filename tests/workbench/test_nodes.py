"""Hardware as one chooses it: nodes of pools, precisions an accelerator lacks, and what a run says of both."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airi_sim.hardware.choose import cost_model
from airi_sim.workbench.config import load_config, plain
from airi_sim.workbench.pools import plan_pools
from tests.hardware.parts import make_plan
from tests.workbench.conftest import Run


def pass_seconds(*words: str) -> float:
    (pool,) = plan_pools(plain(load_config(["pool.tp=4", *words])), 512, measured=False)
    return cost_model(pool.deployment).affine(make_plan([500] * 64)).first


def warnings(airi: Run, *words: str) -> list[str]:
    done = airi("workload.n=5", *words)
    assert done.code == 0, done.err
    summary: dict[str, Any] = json.loads((done.folder / "summary.json").read_text())
    return list(summary["provenance"]["warnings"])


def test_the_node_of_a_pool_decides_on_its_collectives() -> None:
    usual, slow = pass_seconds("accelerator=h100-sxm"), pass_seconds("accelerator=h100-sxm", "pool.node=pcie5-no-p2p")
    assert slow > usual
    assert pass_seconds("accelerator=h100-sxm", "pool.node=hgx-h100") == usual


def test_collectives_of_the_accelerator_still_count() -> None:
    table = "accelerator.collectives={vllm: {4: [1.0e-3, 1.0e+9]}}"
    assert pass_seconds("accelerator=h100-sxm", table) > 64e-3, "two of a millisecond in each of 32 layers"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("accelerator=a100-sxm-80", "precision=fp8"), "cannot multiply fp8"),
        (("accelerator=t4", "model=qwen3-0.6b"), "has no bf16"),
        (("model=llama-3.1-70b", "pool.tp=16"), "crosses 2 nodes"),
        (("model=llama-3.1-70b", "pool.tp=16", "accelerator=gb200"), "measured up to 4"),
        (("model=qwen3-32b-fp8", "accelerator=h200-sxm"), "precision=fp8 takes them as they are"),
    ],
    ids=["fp8", "bf16", "nodes", "table", "published"],
)
def test_a_run_says_what_one_should_doubt(airi: Run, words: tuple[str, ...], said: str) -> None:
    assert any(said in sentence for sentence in warnings(airi, *words))


def test_a_run_on_hardware_that_is_known_says_nothing(airi: Run) -> None:
    assert warnings(airi, "model=llama-3.1-8b", "accelerator=h100-sxm", "pool.tp=8") == []


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("accelerator.peak_flops.bf16=0", ("peak_flops.bf16", "greater than 0")),
        ("accelerator.peak_flops={bf17: 1.0e+12}", ("'bf17'", "bf16")),
        ("precision=fp32", ("no peak_flops for fp32", "bf16")),
        ("accelerator.node=hgx-h100", ("pool.node=NAME",)),
        ("accelerator.sources={e_x: a}", ("'e_x'", "e_m")),
    ],
)
def test_impossible_hardware_is_refused_in_one_sentence(airi: Run, word: str, parts: tuple[str, ...]) -> None:
    sentence = airi("accelerator=h100-sxm", word).sentence
    assert all(part in sentence for part in parts), sentence

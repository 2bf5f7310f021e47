"""Prefill and decode pools from a config: who runs what, over which links, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest

from airi_sim.hardware.network import Node, Wire
from airi_sim.workbench.build import build
from airi_sim.workbench.config import load_config, plain
from tests.workbench.conftest import Done, Run

BOTH = "pools={p: {role: prefill, replicas: 2}, d: {role: decode, replicas: 2}}"
FEW = ("model=llama-3.1-8b", "accelerator=h100-sxm", "workload.n=40", "workload.rate=20")


def table(done: Done, name: str) -> pd.DataFrame:
    return pd.read_parquet(done.folder / f"{name}.parquet")


def summary(done: Done) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((done.folder / "summary.json").read_text())
    return found


def run(airi: Run, *words: str) -> Done:
    done = airi(BOTH, *FEW, *words)
    assert done.code == 0, done.err
    return done


def test_prompts_run_in_one_pool_and_tokens_in_the_other(airi: Run) -> None:
    plans = table(run(airi), "plans")
    passes = plans[plans["kind"] == "pass"]
    assert set(passes[passes["decodes"] > 0]["server"]) == {"d/0", "d/1"}
    assert set(passes[passes["prefill_tokens"] > 0]["server"]) == {"p/0", "p/1"}
    assert set(plans[plans["kind"] == "move"]["server"]) == {"kv_link"}


def test_a_move_takes_its_bytes_over_the_rate_of_the_cards(airi: Run) -> None:
    """One request: 1,000 tokens of 131,072 bytes at 0.85 x 50 GB/s after 5 us."""
    done = run(airi, "workload.n=1", "workload.input.min=1000", "workload.input.max=1000")
    move = table(done, "plans").query("kind == 'move'").iloc[0]
    assert move["prefill_tokens"] == 1000 * 131072
    assert move["end_s"] - move["start_s"] == pytest.approx(5e-6 + 1000 * 131072 / 42.5e9)


def test_every_figure_is_the_same_pass_by_pass(airi: Run) -> None:
    found = [summary(run(airi, f"engine.fast_forward={fast}")) for fast in ("true", "false")]
    assert found[0]["decisions_hash"] == found[1]["decisions_hash"]
    for name in ("ttft_s", "tpot_s", "e2e_s"):
        assert found[0][name] == pytest.approx(found[1][name], rel=1e-6)


def test_the_link_is_no_replica(airi: Run) -> None:
    use = summary(run(airi))["utilization"]
    assert use["replicas"] == 4
    assert set(use["servers"]) == {"p/0", "p/1", "d/0", "d/1"}


def routes(*words: str) -> Any:
    world = build(plain(load_config([BOTH, *FEW, *words])))
    return world.driver.executors[-1].topology


def test_replicas_together_use_the_links_inside_their_machine() -> None:
    apart, together = routes().route(0, 2), routes("transfer.together=true").route(0, 2)
    assert apart.rate == 50e9 * 0.85
    assert together.rate == 450e9 * 0.8


def test_a_pool_stands_on_the_node_it_names() -> None:
    links = "{nic: {bandwidth: 1e9, efficiency: 1.0}, scale_up: {bandwidth: 1e10}}"
    node = f"{{_target_: airi_sim.hardware.network.Node, name: slow, links: {links}}}"
    topology = routes(f"pools.d.node={node}")
    assert topology.places[2].node == Node("slow", links={"nic": Wire(1e9, 1.0), "scale_up": Wire(1e10)})
    assert topology.route(0, 2).rate == 1e9


def test_the_experiment_runs_and_says_what_to_doubt(airi: Run) -> None:
    done = airi("experiment=pd", "workload.n=20", "model=llama-3.1-8b", "accelerator=h100-sxm", small=False)
    assert done.code == 0, done.err
    found = summary(done)
    assert found["moves"]["count"] == 20 - (table(done, "requests")["output_tokens"] == 1).sum()
    assert any("links of node 'hgx-h100'" in text for text in found["provenance"]["warnings"])


def test_sequences_must_fit_in_both_pools(airi: Run) -> None:
    done = run(airi, "pools.d.server={kv_blocks: 100}", "workload.input.max=3000", "workload.input.mean=1400")
    requests = table(done, "requests")
    rejected = requests[requests["status"] == "rejected"]
    assert len(rejected) and (rejected["prompt_tokens"] >= 1600).all()
    assert (requests[requests["status"] == "finished"]["prompt_tokens"] < 1600).all()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("pools={p: {role: prefill}, d: {role: decode, model: small}}",), ("'p' has", "no pool of role decode")),
        (("pools={d: {role: decode}, b: {}}",), ("'d' has the role decode", "no pool of role prefill")),
        ((BOTH, "pools.d.server={block_size: 32}"), ("same server.block_size", "16, 32")),
        (("pools={p: {role: prefill}, kv_link: {role: decode}}",), ("'kv_link'", "rename")),
        ((BOTH, "pools.p.tp=16", "model=llama-3.1-405b", "pools.d.tp=16"), ("16 accelerators does not fit", "of 8")),
        pytest.param(
            (BOTH, "backend=torch"), ("can only be simulated", "backend=sim"), marks=pytest.mark.real
        ),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(airi: Run, words: tuple[str, ...], parts: tuple[str, ...]) -> None:
    sentence = airi("accelerator=h100-sxm", *words).sentence
    assert all(part in sentence for part in parts), sentence

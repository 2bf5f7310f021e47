"""The catalogue: every accelerator, node and link, where its numbers are from, and what is said of impossible ones."""

import csv
import os
from dataclasses import replace
from pathlib import Path

import pytest

from airi_sim.core.errors import BadInput
from airi_sim.hardware.accelerator import COEFFICIENTS, GROUP_OF, Accelerator
from airi_sim.hardware.cost import PhysicsCost, kv_blocks
from airi_sim.hardware.fabric import ALPHA_RANK_S, ALPHA_S, collective
from airi_sim.hardware.kernels import layouts
from airi_sim.hardware.network import Node, Wire
from airi_sim.workbench.paths import choice, options
from tests.hardware.parts import deployment, load, make_plan

ACCELERATORS = [name for name in options("accelerator") if name != "profile"]
MODELS = [name for name in options("model") if name != "hf"]
SHEETS = {"b200": "B200-SXM", "b300": "B300-SXM", "rtx-pro-6000": "RTX-PRO-6000-BW", "xeon-8480": "Xeon-8480+"}
MEASURED = {
    "hgx-a100": "a100_sxm", "hgx-h100": "h100_sxm", "hgx-h200": "h200_sxm", "hgx-b200": "b200_sxm",
    "hgx-b300": "b300_sxm", "gb200-nvl72": "gb200", "gb300-nvl72": "gb300", "pcie4-l40s": "l40s",
    "pcie5-rtx-pro-6000": "rtx_pro_6000_server", "pcie4-b60": "b60",
}  # fmt: skip
BOX = Node(
    "box", 8, 4, {"scale_up": Wire(100e9, 0.5), "nic": Wire(10e9, 1.0, 5e-6)},
    {"all_reduce": {"nccl": {2: (10e-6, 40e9), 4: (14e-6, 30e9)}, "vllm": {2: (4e-6, 45e9)}}},
)  # fmt: skip


def table(name):
    folder = Path(os.environ.get("AIRI_DATA", "")) / "hardware"
    if not os.environ.get("AIRI_DATA") or not folder.is_dir():
        pytest.skip("no reference data: set AIRI_DATA")
    with (folder / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_catalogue_is_broad_enough():
    assert len(ACCELERATORS) >= 20
    assert len(MODELS) >= 20
    assert len(options("node")) >= 10


@pytest.mark.parametrize("name", ACCELERATORS)
def test_every_number_of_an_accelerator_says_where_it_is_from(name):
    device = load("accelerator", name)
    listed = {each.name: each for each in device.coefficients()}
    assert {*listed} == {*GROUP_OF}
    assert all(each.source for each in listed.values())
    for group, names in COEFFICIENTS.items():
        if listed[names[0]].source.startswith("fitted"):
            assert group in ("gemm", "decode", "prefill")
    assert all("guess" in listed[coefficient].source for coefficient in ("usd_per_hour", "idle_w"))
    assert all(least <= most for each in listed.values() for least, most in each.ranges.values())


@pytest.mark.parametrize("name", ACCELERATORS)
def test_every_accelerator_has_a_price_and_power_from_which_carbon_follows(name):
    device = load("accelerator", name)
    assert device.usd_per_hour > 0
    assert 0 < device.idle_w < device.tdp_w


@pytest.mark.parametrize("name", ACCELERATORS)
def test_sheets_are_those_of_the_reference_table(name):
    rows = {row["name"].lower(): row for row in table("accelerators.csv")}
    row = rows.get(SHEETS.get(name, name).lower())
    if row is None:
        assert name == "cpu"
        return
    device = load("accelerator", name)
    assert device.peak("bf16") == device.peak("fp16") == float(row["bf16_tflops_dense"]) * 1e12
    if row["fp8_tflops_dense"]:
        assert device.peak("fp8") == float(row["fp8_tflops_dense"]) * 1e12
    assert device.bandwidth == float(row["mem_gbs"]) * 1e9
    assert device.memory_bytes == pytest.approx(float(row["mem_gb"]) * 1e9, rel=0.08), "GB or GiB, as drivers count"
    assert (device.tdp_w, device.idle_w) == (float(row["tdp_w"]), float(row["idle_w_guess"]))
    if row["confidence"] == "low":
        assert device.confidence == "low"


@pytest.mark.parametrize("name", MEASURED)
def test_collectives_of_a_node_are_those_of_the_reference_table(name):
    node = load("node", name)
    names = {"alltoall": "all_to_all"}
    for row in (row for row in table("collective_fit.csv") if row["sys"] == MEASURED[name]):
        engine, operation = row["impl"].removeprefix("custom_"), names.get(row["op"], row["op"])
        found = collective(node, operation, engine, int(row["n"]))
        assert found.doubt == ""
        assert found.alpha_s == pytest.approx(float(row["alpha_us"]) * 1e-6, rel=1e-3)
        assert found.bus == pytest.approx(float(row["busbw_GBs"]) * 1e9, rel=1e-3)
        moved = 2e9 if operation == "all_reduce" else 1e9
        n = found.per_byte(operation, int(row["n"])) * 1e9
        assert n == pytest.approx(moved * (int(row["n"]) - 1) / int(row["n"]) / found.bus)


@pytest.mark.parametrize("name", options("node"))
def test_every_node_has_all_its_links(name):
    node = load("node", name)
    assert node.name == name
    assert node.source
    for link in ("scale_up", "nic", "host", "nvme", "store"):
        assert node.link(link).rate > 0
        assert node.link(link).source


@pytest.mark.parametrize("name", options("link"))
def test_every_link_says_where_it_is_from(name):
    assert Wire(**choice("link", name)).source


@pytest.mark.parametrize("name", MODELS)
def test_every_model_fits_on_eight_b300_as_published_and_runs(name):
    model, device, serving = load("model", name), load("accelerator", "b300"), load("serving", "vllm")
    precision = "bf16" if model.precision == "fp32" else model.precision
    tp = max(ranks for ranks in layouts(model) if ranks <= 8)
    assert kv_blocks(model, device, serving, precision, tp) * 16 > 10_000
    cost = PhysicsCost(deployment(name, "b300", tp=tp, precision=precision))
    assert 0 < cost.affine(make_plan([100] * 4, [(64, 0)])).first < 1


def test_collectives_belong_to_node_and_engine():
    vllm, nccl = collective(BOX, "all_reduce", "vllm", 2), collective(BOX, "all_reduce", "nccl", 2)
    assert (vllm.alpha_s, nccl.alpha_s) == (4e-6, 10e-6)
    assert collective(BOX, "all_reduce", "lightllm", 2) == nccl, "an engine without kernels of its own has NCCL's"
    device = replace(load("accelerator", "h100-sxm"), node=BOX)
    assert device.all_reduce("vllm", 2) == (4e-6, pytest.approx(1 / 45e9))
    old = replace(device, collectives={"vllm": {2: (1e-6, 1e9)}})
    assert old.all_reduce("vllm", 2) == (1e-6, pytest.approx(1e-9))


def test_beyond_its_table_a_collective_is_extrapolated_and_says_so():
    between, beyond = collective(BOX, "all_reduce", "nccl", 3), collective(BOX, "all_reduce", "nccl", 8)
    assert between[:2] == pytest.approx((12e-6, 35e9)) and "interpolated" in between.doubt
    assert beyond[:2] == pytest.approx((22e-6, 30e9)) and "measured up to 4" in beyond.doubt
    lone = collective(BOX, "all_reduce", "vllm", 4)
    assert lone[:2] == (4e-6, 45e9) and "measured up to 2" in lone.doubt
    never = collective(BOX, "all_gather", "nccl", 4)
    assert never[:2] == pytest.approx((ALPHA_S + 4 * ALPHA_RANK_S, 50e9)) and "never measured" in never.doubt
    across = collective(BOX, "all_reduce", "nccl", 16)
    assert across.bus == 30e9 and across.alpha_s == pytest.approx(38e-6 + 2 * 5e-6) and "2 nodes" in across.doubt
    with pytest.raises(BadInput, match="unknown collective 'broadcast'"):
        collective(BOX, "broadcast", "nccl", 2)


def test_what_an_accelerator_cannot_multiply_is_widened_and_said():
    a100, v100 = load("accelerator", "a100-sxm-80"), load("accelerator", "v100-sxm-32")
    assert a100.peak("fp8") == a100.peak("int4") == a100.peak("bf16")
    assert any("cannot multiply fp8" in note for note in a100.notes("fp8"))
    assert not any("multiply" in note for note in (*a100.notes("int4"), *a100.notes("bf16")))
    assert v100.peak("bf16") == v100.peak("fp16")
    assert any("has no bf16" in note for note in v100.notes("bf16"))
    with pytest.raises(BadInput, match="no peak_flops for fp32"):
        a100.peak("fp32")
    assert any("crosses 2 nodes" in note for note in a100.notes("bf16", "vllm", 16))
    assert a100.notes("bf16", "vllm", 8) == ()


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"peak_flops": {"bf16": 0.0}}, r"peak_flops\.bf16 must be greater than 0, not 0\.0"),
        ({"peak_flops": {"bf16": -1e12}}, r"peak_flops\.bf16 must be greater than 0"),
        ({"peak_flops": {"bf16": float("nan")}}, "greater than 0"),
        ({"peak_flops": {"bf17": 1e12}}, "unknown precision in peak_flops of accelerator 'x' 'bf17'"),
        ({"peak_flops": {}}, "has no peak_flops"),
        ({"bandwidth": float("inf")}, "bandwidth must be greater than 0, not inf"),
        ({"memory_bytes": -1.0}, "memory_bytes must be greater than 0"),
        ({"e_c": 2.0}, "e_c must be at most 1"),
        ({"e_moe": 1.01}, "e_moe must be at most 1"),
        ({"interconnect": 0.0}, "interconnect must be greater than 0"),
        ({"decode_s": -1e-6}, "decode_s must be 0 or more"),
        ({"usd_per_hour": -1.0}, "usd_per_hour must be 0 or more"),
        ({"node": "hgx-h100"}, r"choose with pool\.node=NAME"),
        ({"sources": {"e_x": "dreams"}}, "unknown coefficient of accelerator 'x' 'e_x'"),
        ({"ranges": {"gem": {}}}, "did you mean 'gemm'"),
    ],
)
def test_impossible_accelerators_are_refused(change, wanted):
    with pytest.raises(BadInput, match=wanted):
        Accelerator(**{"name": "x", "peak_flops": {"bf16": 1e12}, "memory_bytes": 1e9, "bandwidth": 1e9} | change)


@pytest.mark.parametrize(
    ("collectives", "wanted"),
    [
        ({"all_reduse": {}}, "did you mean 'all_reduce'"),
        ({"all_reduce": {"nccl": {2: [1e-6, 0.0]}}}, "must be \\[seconds, bytes/s\\]"),
        ({"all_reduce": {"nccl": {"two": [1e-6, 1e9]}}}, "over two ranks"),
        ({"all_reduce": {"nccl": {1: [1e-6, 1e9]}}}, "over 1 ranks"),
    ],
)
def test_impossible_collectives_are_refused(collectives, wanted):
    with pytest.raises(BadInput, match=wanted):
        Node("x", collectives=collectives)

"""Nodes, routes and storage tiers: what is shared, what is not, and how long bytes take."""

from __future__ import annotations

from typing import Any

import pytest

from airi_sim.core.errors import BadInput
from airi_sim.hardware import storage
from airi_sim.hardware.collectives import ring_all_reduce
from airi_sim.hardware.network import Node, Topology, Wire, node_around
from airi_sim.hardware.sharing import Flow, Sharing
from tests.hardware.parts import load

BOX = Node("box", 8, 4, {"scale_up": Wire(100e9, 0.5, 1e-6), "nic": {"bandwidth": 10e9, "efficiency": 1.0}})


def placed(*replicas: tuple[int, str], node: Node = BOX) -> Topology:
    topology = Topology()
    for server, (ranks, group) in enumerate(replicas):
        topology.place(server, node, ranks, group)
    return topology


def test_inside_a_machine_bytes_go_over_the_scale_up_links_of_all_ranks() -> None:
    route = placed((4, "a"), (4, "a")).route(0, 1)
    assert route.rate == 4 * 50e9
    assert route.latency_s == 1e-6


def test_a_full_machine_is_followed_by_another() -> None:
    topology = placed((4, "a"), (4, "a"), (4, "a"))
    assert [topology.places[i].machine for i in range(3)] == ["a:0", "a:0", "a:1"]
    assert topology.route(0, 2).rate == 2 * 10e9, "two of the four cards are next to four of the eight accelerators"


def test_groups_do_not_share_machines() -> None:
    assert placed((1, "a"), (1, "b")).route(0, 1).rate == 10e9


def test_replicas_next_to_the_same_card_share_it() -> None:
    topology = placed((1, "a"), (1, "a"), (1, "a"), (1, "b"), (1, "b"))
    first, second, third = (topology.route(i, 3) for i in range(3))
    assert first.wires == second.wires != third.wires
    assert first.wires[1] == third.wires[1] == topology.route(0, 4).wires[1]


def test_the_narrower_end_decides() -> None:
    assert placed((1, "a"), (8, "b")).route(0, 1).rate == 10e9


def test_nothing_moves_within_a_replica() -> None:
    assert placed((1, "a")).route(0, 0).wires == ()


def test_a_replica_must_fit_on_a_node() -> None:
    with pytest.raises(BadInput, match="16 accelerators does not fit on a node 'box' of 8"):
        placed((16, "a"))


@pytest.mark.parametrize(
    ("links", "part"),
    [
        ({"nvlink": {"bandwidth": 1}}, "unknown link"),
        ({"nic": {"bandwidth": 1, "speed": 2}}, "unknown key"),
        ({"nic": {"bandwidth": 0}}, "bandwidth above 0"),
        ({"nic": 5}, "must be a mapping"),
        ({"nic": {"bandwidth": 1, "efficiency": 1.5}}, "at most 1"),
    ],
)
def test_impossible_links_are_refused(links: dict[str, Any], part: str) -> None:
    with pytest.raises(BadInput, match=part):
        Node("n", links=links)


def test_impossible_nodes_are_refused() -> None:
    with pytest.raises(BadInput, match="from 1 to 2 nics, not 3"):
        Node("n", accelerators=2, nics=3)
    with pytest.raises(BadInput, match="no link 'scale_up'"):
        placed((1, "a"), node=Node("n"))


def test_a_node_nobody_described_has_the_links_of_its_accelerator() -> None:
    device = load("accelerator", "h100-sxm")
    assert node_around(device).link("scale_up").bandwidth == device.interconnect
    assert node_around(device).link("host").bandwidth == device.host_bandwidth


def test_a_ring_all_reduce_as_flows_takes_as_long_as_its_formula_says() -> None:
    """Every rank sends 2 (p-1)/p of the vector to its neighbour, all at once over wires of their own."""
    ranks, size = 4, 6e9
    topology = placed(*[(1, "a")] * ranks)
    routes = [topology.route(i, (i + 1) % ranks) for i in range(ranks)]
    sharing = Sharing(topology.rates)
    flows = [Flow(route.wires, 2 * (ranks - 1) / ranks * size) for route in routes]
    for flow in flows:
        sharing.begin(flow, 0.0)
    assert [flow.end for flow in flows] == pytest.approx([ring_all_reduce(ranks, size, 50e9)] * ranks)


def test_a_collective_and_a_transfer_out_of_the_same_accelerator_slow_each_other_down() -> None:
    topology = placed(*[(1, "a")] * 3)
    sharing = Sharing(topology.rates)
    alone, beside = (Flow(topology.route(0, target).wires, 50e9) for target in (1, 2))
    sharing.begin(alone, 0.0)
    assert alone.end == 1.0
    sharing.begin(beside, 0.0)
    assert alone.end == beside.end == 2.0


TIERED = Node("t", links={"host": Wire(50e9, 1.0, 1e-3), "nvme": Wire(7e9, 1.0, 1e-2), "store": Wire(1e9, 1.0, 1e-1)})


def test_a_load_is_as_slow_as_its_slowest_stage() -> None:
    assert storage.load(14e9, TIERED, "host").seconds == pytest.approx(14 / 50 + 1e-3)
    assert storage.load(14e9, TIERED, "nvme").seconds == pytest.approx(2 + 1.1e-2)
    assert storage.load(14e9, TIERED, "store", init_s=9.0).seconds == pytest.approx(14 + 9 + 0.101)


def test_accelerators_load_side_by_side_until_the_drives_are_the_limit() -> None:
    one, eight = (storage.load(140e9, TIERED, "host", n).seconds for n in (1, 8))
    assert one - 1e-3 == pytest.approx(8 * (eight - 1e-3))
    assert storage.load(140e9, TIERED, "nvme", 8) == storage.load(140e9, TIERED, "nvme", 1)


def test_swapping_kv_costs_its_bytes() -> None:
    model = load("model", "llama-3.1-8b")
    out = storage.swap(8000, model.kv_bytes_per_token("bf16"), TIERED)
    assert out.size == 8000 * 2 * 32 * 8 * 128 * 2
    assert out.seconds == pytest.approx(1e-3 + out.size / 50e9)


@pytest.mark.parametrize(("tier", "accelerators", "part"), [("tape", 1, "unknown tier"), ("host", 9, "from 1 to 8")])
def test_impossible_transfers_are_refused(tier: str, accelerators: int, part: str) -> None:
    with pytest.raises(BadInput, match=part):
        storage.transfer(1.0, TIERED, tier, accelerators)

"""What copies of KV blocks cost, by the links of a node."""

from __future__ import annotations

import pytest

from airi_sim.core.types import Copies, Copy
from airi_sim.hardware.network import Node, Wire
from airi_sim.hardware.storage import LinkCopies

HOST = Node("one", 2, 2, links={"host": Wire(100.0, 0.5, 0.25)})


@pytest.mark.parametrize(("accelerators", "lanes"), [(1, 1), (2, 2)])
def test_each_way_pays_its_latency_and_its_bytes_and_copies_inside_read_and_write(
    accelerators: int, lanes: int
) -> None:
    cost = LinkCopies(10.0, HOST, accelerators, 400.0)
    out, inside, back = ([Copy(None, 2), Copy(None, 3)], [Copy(None, 4)], [Copy(None, 1)])
    assert cost.seconds(Copies(out)) == pytest.approx(0.25 + 50 / 50 / lanes)
    assert cost.seconds(Copies(back=back)) == pytest.approx(0.25 + 10 / 50 / lanes)
    assert cost.seconds(Copies(inside=inside)) == pytest.approx(2 * 40 / 400 / lanes)
    apart = cost.seconds(Copies(out)) + cost.seconds(Copies(inside=inside)) + cost.seconds(Copies(back=back))
    assert cost.seconds(Copies(out, inside, back)) == pytest.approx(apart)


def test_what_the_cache_still_holds_costs_nothing_to_bring_back() -> None:
    assert LinkCopies(10.0, HOST, 1, 400.0).seconds(Copies(back=[Copy(None, 0)])) == 0.0

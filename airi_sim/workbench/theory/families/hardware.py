"""What the cost side computes by itself: rings, bubbles, rooflines, and wires that several flows share."""

from __future__ import annotations

import numpy as np

from airi_sim.hardware.collectives import ridge, ring_all_reduce, roofline
from airi_sim.hardware.sharing import Flow, Sharing, max_min
from airi_sim.workbench.objects import instantiate
from airi_sim.workbench.plugins import group_node
from airi_sim.workbench.theory import forms
from airi_sim.workbench.theory.families.one_server import kept
from airi_sim.workbench.theory.rig import poisson
from airi_sim.workbench.theory.rows import Claim, Experiment, Sample
from airi_sim.workbench.theory.sizes import Size, exponential, hyper

RIDGES = {"a100-sxm-80": 153.0, "h100-sxm": 295.0, "h200-sxm": 206.0, "l4": 403.0}
"""FLOP a byte at which a bf16 product turns from memory to compute, from the datasheets."""
WEIGHTS = 16.06e9
"""Bytes of an 8B model in bf16."""
FLOORS = {"a100-sxm-80": 7.88e-3, "h100-sxm": 4.79e-3, "h200-sxm": 3.35e-3, "l4": 53.5e-3}
"""Seconds to read them once."""
SHARED = (
    ({"A": 10.0, "B": 4.0}, ("A", "AB", "B"), (8.0, 2.0, 2.0)),
    ({"A": 10.0, "B": 6.0, "C": 8.0}, ("A", "AB", "BC", "C", "ABC"), (6.0, 2.0, 2.0, 4.0, 2.0)),
)
"""Wires, the routes of the flows, and their max-min fair rates, solved by hand."""


def experiments() -> list[Experiment]:
    """Rings and rooflines by arithmetic; a shared wire as processor sharing, with arrivals at random."""
    return [_collectives(), _rooflines(), _max_min(), _wire(exponential(), 0.5, quick=True), _wire(hyper(4), 0.5)]


def _certain(name: str, figures: dict[str, float], claims: list[Claim]) -> Experiment:
    """Nothing random: one replication."""
    return Experiment(name, lambda _, __: Sample(figures), tuple(claims), replications=1, quick=True)


def _collectives() -> Experiment:
    figures, claims = {}, []
    for ranks in (2, 8):
        form = forms.ring_all_reduce(ranks, 64e6, 450e9, 5e-6)
        figures[f"ring{ranks}"] = ring_all_reduce(ranks, 64e6, 450e9, 5e-6)
        name = f"ring all-reduce of 64 MB over {ranks}"
        claims.append(Claim(f"ring{ranks}", name, form, "Patarasuk & Yuan 2009", absolute=1e-12))
    return _certain("rings", figures, claims)


def _rooflines() -> Experiment:
    figures, claims = {}, []
    for card, form in RIDGES.items():
        device = instantiate(group_node("accelerator", card, 0), "accelerator")
        peak, bandwidth = device.peak("bf16"), device.bandwidth
        figures[card] = ridge(peak, bandwidth)
        figures[f"{card} floor"] = roofline(2 * WEIGHTS / 2, WEIGHTS, peak, bandwidth)
        claims.append(Claim(card, f"ridge of {card}", form, "datasheet", unit="FLOP/B"))
        claims.append(Claim(f"{card} floor", f"one token of an 8B model on {card}", FLOORS[card], "roofline"))
    return _certain("rooflines", figures, claims)


def _max_min() -> Experiment:
    figures, claims = {}, []
    for i, (capacity, routes, rates) in enumerate(SHARED):
        found = max_min([tuple(route) for route in routes], capacity)
        figures[f"case {i}"] = max(abs(a - b) for a, b in zip(found, rates, strict=True))
        name = f"max-min rates of {len(routes)} flows over {len(capacity)} wires"
        claims.append(Claim(f"case {i}", name, 0.0, "by hand", unit="B/s", note="largest difference", absolute=1e-12))
    return _certain("shared wires", figures, claims)


def _wire(size: Size, load: float, quick: bool = False) -> Experiment:
    """Flows of random size over one wire of 1 byte/s: processor sharing."""

    def sample(rng: np.random.Generator, n: int) -> Sample:
        arrivals, sizes = poisson(rng, load, n), size.draw(rng, n)
        wire = Sharing({"wire": 1.0})
        flows = [Flow(("wire",), one) for one in sizes.tolist()]
        for at, flow in zip(arrivals.tolist(), flows, strict=True):
            _until(wire, at)
            wire.begin(flow, at)
        _until(wire, np.inf)
        times = kept(np.array([flow.end for flow in flows]) - arrivals)
        gaps = kept(np.diff(arrivals, prepend=0.0)).mean() * load - 1
        return Sample({"time": times.mean()}, [float(gaps), float(kept(sizes).mean() - size.mean)])

    name = f"a wire shared by flows, {size.name} sizes, load {load:g}"
    claim = Claim("time", f"{name}: mean time", forms.ps_time(load, size.mean), "M/G/1-PS")
    return Experiment(name, sample, (claim,), 8_000, quick=quick)


def _until(wire: Sharing, at: float) -> None:
    """Let flows end that end before `at`."""
    while (wakeup := wire.wakeup()) <= at and wakeup < np.inf:
        wire.settle(wakeup)

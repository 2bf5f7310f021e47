"""Blocks that are really copied, and runs whose texts do not depend on what became of their memory."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from airi_sim.core.types import Copies, Copy, Job
from airi_sim.hardware.accelerator import Accelerator
from airi_sim.hardware.storage import COPY, MeasuredCopies, block_bytes, copies_as_plan, copy_cost
from airi_sim.workbench import comparison
from airi_sim.workbench.build import World, build
from airi_sim.workbench.config import load_config, plain
from airi_sim.workbench.leaks import check_leaks
from real_backend import kv
from real_backend.backend import TorchBackend
from real_backend.copies import CopyingProbe
from real_backend.kv import PagedKV, runs
from tests.real_backend.world import LLAMA, POOL

pytestmark = pytest.mark.real
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SWAPPING = replace(POOL, swap_blocks=20, copy_on_write=True)


def numbered(host_blocks: int = 6) -> PagedKV:
    """Ten blocks, in each layer filled with their number and that of the layer."""
    cache = PagedKV(LLAMA, 10, 4, DEVICE, torch.float32, host_blocks)
    for i, layer in enumerate(cache.layers):
        layer += torch.arange(11, device=DEVICE)[:, None] + 100 * i
    return cache


def held(tensors: list[torch.Tensor]) -> list[list[int]]:
    """The number that fills each block, layer by layer, less that of the layer."""
    assert all((layer == layer[:, :1]).all() for layer in tensors)
    return [(layer[:, 0] - 100 * i).tolist() for i, layer in enumerate(tensors)]


def test_blocks_go_out_and_come_back_elsewhere_in_every_layer() -> None:
    cache = numbered()
    cache.copy(Copies(out=[Copy(None, 3, [7, 2, 9], [4, 5, 0])]))
    for i, layer in enumerate(cache.layers):
        layer[[7, 2, 9]] = 100.0 * i - 1
    cache.copy(Copies(back=[Copy(None, 2, [4, 5], [1, 2]), Copy(None, 1, [0], [7])]))
    for blocks in held(cache.layers):
        assert blocks == [0, 7, 2, 3, 4, 5, 6, 9, 8, -1, 10]


def test_what_is_read_on_the_device_is_what_was_there_before() -> None:
    """A block may go out, be copied and be written in one plan, and come back at once."""
    cache = numbered()
    out, inside = Copy(None, 2, [1, 2], [3, 2]), Copy(None, 2, [2, 3], [3, 1])
    cache.copy(Copies([out], [inside], [Copy(None, 1, [3], [2])]))
    for blocks in held(cache.layers):
        assert blocks == [0, 3, 1, 2, 4, 5, 6, 7, 8, 9, 10]
    for host in held([layer[2:4] for layer in cache.host]):
        assert host == [2, 1]


def test_neighbours_are_one_transfer() -> None:
    assert list(runs([4, 5, 6, 1, 2, 9])) == [(0, 3), (3, 5), (5, 6)]
    assert list(runs([7])) == [(0, 1)]


def test_a_block_has_the_bytes_that_both_worlds_say() -> None:
    assert block_bytes(replace(POOL, precision="fp32")) == kv.block_bytes(LLAMA, POOL.block_size, torch.float32)


@cache
def composed(*overrides: str) -> dict[str, Any]:
    return plain(load_config(["validate=parity", "workload.n=80", "workload.rate=inf", "pool.replicas=1", *overrides]))


def texts(*overrides: str) -> tuple[dict[int, list[int]], World, Counter[str]]:
    """What each job generated."""
    world = build(deepcopy(composed(*overrides)), None)
    backend: Any = world.backend
    found: dict[int, list[int]] = {}
    put = backend.results.put

    def noted(job: Job, result: Any) -> None:
        found[job.id] = list(result.ids)
        put(job, result)

    backend.results.put = noted
    world.driver.run(iter(world.workload))
    check_leaks(world)
    return found, world, Counter(str(row[4]).rstrip(" 0123456789") for row in world.log.decisions)


def test_texts_are_the_same_whatever_becomes_of_the_memory() -> None:
    expected, _, words = texts("server.kv_blocks=2000", "server.prefix_caching=false")
    assert not words["preempt"]
    recomputed, _, words = texts("server.prefix_caching=false")
    assert words["preempt"] > 10
    swapped, _, words = texts("server.swap_bytes=1e7", "server.copy_on_write=true")
    assert words["swap out"] == words["swap in"] > 10
    assert expected == recomputed == swapped


def test_a_measured_run_with_swaps_and_copies_is_replayed_exactly() -> None:
    more = ("server.swap_bytes=1e5", "server.copy_on_write=true", "workload.prefix={groups: 3, tokens: 48}")
    overrides = (*more, "workload.input={mean: null, sigma: null, kind: uniform, min: 48, max: 48}")
    _, world, words = texts(*overrides)
    assert min(words["swap out"], words["swap in"], words["preempt"], words["copy"]) > 3
    found = comparison.replay(comparison.pin_memory(composed(*overrides), world), world)
    assert found.parity.identical, str(found.parity)
    assert found.apart_s == 0


def test_copies_are_sampled_beside_the_passes() -> None:
    backend = TorchBackend(device="cpu")
    try:
        probe = backend.probe(SWAPPING)
        assert isinstance(probe, CopyingProbe)
        probe.widen()
        for _ in range(48):
            probe.take()
        samples = probe.beside[COPY]
        assert len(samples) == 10
        assert all(seconds > 0 for _, seconds in samples)
        profile = backend.profile()
    finally:
        backend.close()
    measured = copy_cost(replace(SWAPPING, accelerator=Accelerator("cpu", {"fp32": 1e12}, 1e9, 1e9, profile=profile)))
    assert isinstance(measured, MeasuredCopies)
    assert measured.seconds(Copies(out=[Copy(None, 5)])) > 0


def test_copies_as_a_plan() -> None:
    plan = copies_as_plan(Copies([Copy(None, 3), Copy(None, 2)], [], [Copy(None, 0)]))
    assert (plan.prefill_tokens, len(plan.slices)) == (5, 2)

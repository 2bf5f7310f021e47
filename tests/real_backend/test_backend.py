"""The backend: devices, memory, weights, and messages that say what to do."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import Executor
from real_backend.backend import TorchBackend
from real_backend.library import CPU_KV_BYTES, host_bytes
from tests.real_backend.world import LLAMA, POOL, Fixed, llama

pytestmark = pytest.mark.real
Make = Callable[..., TorchBackend]


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is present")
def test_cuda_asked_for_and_absent(make_backend: Make) -> None:
    with pytest.raises(BadInput, match="finds no CUDA device"):
        make_backend(device="cuda")
    assert make_backend(device="auto").device_name() == "cpu"


@pytest.mark.parametrize(
    ("options", "message"),
    [({"device": "tpu"}, "backend.device"), ({"clock": "sun"}, "backend.clock"), ({"precision": "fp8"}, "precision")],
)
def test_unknown_options_name_the_known_ones(make_backend: Make, options: dict[str, str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        make_backend(**options)


def test_pools_it_cannot_run_are_refused(make_backend: Make) -> None:
    backend = make_backend(workers=0)
    for pool, message in (
        (replace(POOL, tp=2), r"pool\.tp=1"),
        (replace(POOL, kind="train"), "kind of pool"),
        (replace(POOL, model=None), "needs a model"),
        (replace(POOL, kv_blocks=0), r"server\.kv_blocks"),
        (replace(POOL, model=llama(window=64)), "a sliding window"),
    ):
        with pytest.raises(BadInput, match=message):
            backend.executor(pool, 0, Fixed())


def test_replicas_share_weights_and_not_memory(make_backend: Make) -> None:
    backend = make_backend()
    one, two = (backend.executor(POOL, replica, Fixed()) for replica in range(2))
    typed: Executor = one
    assert typed.detailed
    assert one.work.runner.model is two.work.runner.model  # type: ignore[attr-defined]
    caches = [executor.work.runner.cache for executor in (one, two)]  # type: ignore[attr-defined]
    assert caches[0].layers[0].data_ptr() != caches[1].layers[0].data_ptr()
    assert all(len(layer) == POOL.kv_blocks + 1 for cache in caches for layer in cache.layers)


def test_default_memory_is_shared_and_no_more_than_useful(make_backend: Make) -> None:
    backend = make_backend()
    blocks = backend.default_kv_blocks(POOL)
    assert blocks == POOL.max_num_seqs * LLAMA.max_len // POOL.block_size
    big = replace(POOL, model=llama(layers=32, kv_heads=8, heads=8, head_dim=128, max_len=1 << 20))
    each = 32 * POOL.block_size * 2 * 8 * 128 * 4
    assert backend.default_kv_blocks(big) * each <= CPU_KV_BYTES
    assert backend.default_kv_blocks(replace(big, replicas=4)) <= backend.default_kv_blocks(big) // 4 + 1
    with pytest.raises(BadInput, match="no memory"):
        backend.default_kv_blocks(replace(big, replicas=1 << 20))


def test_caches_of_files_are_memory_that_can_be_had(tmp_path: Path) -> None:
    told = tmp_path / "meminfo"
    told.write_text("MemTotal: 9 kB\nMemFree: 1 kB\nMemAvailable:    5 kB\n")
    assert host_bytes(told) == 5 << 10
    assert host_bytes() <= host_bytes(tmp_path / "absent")


def test_a_model_that_the_host_cannot_hold_is_refused(make_backend: Make) -> None:
    with pytest.raises(BadInput, match=r"'huge' in fp32 needs .* bytes for its weights, but 'cpu' has .* free"):
        make_backend().executor(replace(POOL, model=llama("huge", layers=10**7)), 0, Fixed())


def test_named_weights_are_read(make_backend: Make, tmp_path: Path) -> None:
    backend = make_backend(weights={"llama": str(tmp_path)})
    with pytest.raises(BadInput, match="no weights"):
        backend.executor(POOL, 0, Fixed())


def test_closing_undoes_what_was_set() -> None:
    threads, frozen = torch.get_num_threads(), gc.get_freeze_count()
    torch.set_num_threads(2)
    try:
        backend = TorchBackend(device="cpu", cocalibrate=False)
        assert torch.get_num_threads() == 1
        backend.close()
        assert torch.get_num_threads() == 2
        assert gc.get_freeze_count() <= frozen
    finally:
        torch.set_num_threads(threads)


def test_the_config_builds_it() -> None:
    yaml = pytest.importorskip("yaml")
    text = (Path(__file__).parents[2] / "conf" / "backend" / "torch.yaml").read_text(encoding="utf-8")
    options = yaml.safe_load(text)
    assert options.pop("name") == TorchBackend.source
    assert options.pop("_target_") == f"{TorchBackend.__module__}.{TorchBackend.__name__}"
    backend = TorchBackend(**options | {"seed": 0, "device": "cpu"})
    backend.close()
    assert backend.source == "torch"

"""Floor 6: the caches and routers of Mooncake's conversations, on a part of the trace; all of it in `slow`."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from experiments import mooncake

pytestmark = pytest.mark.skipif(not os.environ.get("AIRI_DATA"), reason="needs the traces: set AIRI_DATA")
SMALL = [
    "workload.limit=2500",
    "mooncake.sizes=[1.0e6,10.0e6]",
    "mooncake.routers=[random,jsq,kv_cost]",
    "results.tables=false",
]


def figures(folder: Path) -> dict[tuple[str, str], float]:
    with (folder / "mooncake.csv").open() as file:
        return {(row["what"], row["figure"]): float(row["value"]) for row in csv.DictReader(file)}


def test_a_part_of_the_trace_orders_caches_and_routers_as_the_whole(tmp_path: Path) -> None:
    assert mooncake.main([*SMALL, f"hydra.run.dir={tmp_path}"]) == 0
    found = figures(tmp_path)
    kept, in_cache, lru = (found[f"{name} at 1e+06 tokens", "of_maximum"] for name in CACHES)
    assert kept > lru > 0.1 and kept > in_cache
    ttft = [found[router, "ttft_mean_s"] for router in ("random", "jsq", "kv_cost")]
    assert ttft == sorted(ttft, reverse=True)
    assert (tmp_path / "mooncake.png").stat().st_size > 10_000


CACHES = ("lfu, counts kept", "lfu, in cache", "lru")


@pytest.mark.slow
def test_the_whole_trace_gives_the_figures_of_the_paper(tmp_path: Path) -> None:
    assert mooncake.main(["results.tables=false", f"hydra.run.dir={tmp_path}"]) == 0
    found = figures(tmp_path)
    assert found["unlimited at inf tokens", "share"] == pytest.approx(0.366, abs=0.0005)
    shares = [found[f"{name} at 3e+06 tokens", "of_maximum"] for name in CACHES]
    assert shares == pytest.approx([0.41, 0.26, 0.37], abs=0.03)
    assert found["lfu, counts kept at 5e+07 tokens", "of_maximum"] >= 0.98
    random, load, *aware = (found[router, "ttft_mean_s"] for router in ("random", "jsq", "prefix_affinity", "kv_cost"))
    assert random > load > max(aware)


def test_without_common_prefixes_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["workload.path=azure_conv", "workload.limit=10", f"hydra.run.dir={tmp_path}"]
    assert mooncake.main(words) == 2
    assert "nothing to cache" in capsys.readouterr().err

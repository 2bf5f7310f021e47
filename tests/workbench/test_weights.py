"""The summary measures fairness against the weights that the queue was given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import airi_sim

OVERLOAD = [
    "workload=poisson", "workload.rate=60", "workload.n=400", "workload.tenants={heavy: 1, light: 1}",
    "server.max_num_seqs=8", "policy/queue=vtc",
]  # fmt: skip


def fairness(folder: Path, *more: str) -> Any:
    return airi_sim.run([*OVERLOAD, *more, f"hydra.run.dir={folder}"]).summary["fairness"]


def test_shares_are_compared_by_weight(tmp_path: Path) -> None:
    """Four to one as asked for is fair; measured as if all were equal, Jain's index of 4 and 1 would be 0.74."""
    equal = fairness(tmp_path / "equal")
    weighted = fairness(tmp_path / "weighted", "policy.queue.weights={heavy: 4, light: 1}")
    assert equal["jain"] > 0.98
    assert weighted["jain"] > 0.98
    assert weighted["max_service_difference"] < 4 * equal["max_service_difference"]

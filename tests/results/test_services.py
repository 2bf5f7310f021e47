"""What the summary says of services."""

from __future__ import annotations

from airi_sim.results.columns import Columns
from airi_sim.results.services import sections
from airi_sim.results.text import service_lines


def jobs(*rows: tuple[str, str, float, int, int, str]) -> Columns:
    """(kind, pool, seconds, keys, found, status)."""
    return Columns(
        "jobs",
        [
            (i, i, kind, "", pool, f"{pool}/0", 1.0, 1.0, None, 1.0 + took, keys, 0, found, 0, status)
            for i, (kind, pool, took, keys, found, status) in enumerate(rows)
        ],
    )


def test_sections_are_by_pool_and_know_hits_and_findings() -> None:
    table = jobs(
        ("features", "f", 2.0, 10, 4, "finished"),
        ("features", "f", 4.0, 30, 26, "finished"),
        ("features", "f", 9.0, 30, 0, "failed"),
        ("search", "s", 1.0, 1, 0, "finished"),
        ("generate", "default", 5.0, 100, 50, "finished"),
        ("move", "kv_link", 5.0, 100, 0, "finished"),
    )
    found = sections(table, {"s": {"recall": 0.9, "recall_clustered": 1.0, "queries": 3}, "other": {"recall": 0.0}})
    assert list(found) == ["f", "s"]
    assert found["f"]["hit_rate"] == 30 / 40
    assert (found["f"]["jobs"], found["f"]["s"]["mean"], found["f"]["s"]["max"]) == (2, 3.0, 4.0)
    assert found["s"]["recall"] == 0.9
    assert "hit_rate" not in found["s"]
    assert service_lines({"services": found}) == [
        ("hit rate of f", "75.0 % of the keys"),
        ("recall of s", "90.0 % of 3 queries; 100.0 % in its clusters"),
    ]


def test_a_run_without_services_says_nothing() -> None:
    assert sections(jobs(("generate", "default", 5.0, 100, 50, "finished"))) == {}
    assert service_lines({}) == []

"""The summary: definitions on cases small enough to do by hand, and laws."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from airi_sim.core.errors import BadInput
from airi_sim.core.log import TABLES
from airi_sim.results.metrics import STATUSES, summarise, write_summary
from airi_sim.results.stats import STATISTICS
from airi_sim.results.tables import read_tables, write_tables
from tests.results.conftest import Toy

KEYS = {
    "requests", "duration_s", "throughput", "ttft_s", "tpot_s", "itl_s", "e2e_s", "queue_s", "slo", "fairness", "cache",
    "utilization", "cost", "decisions_hash", "engine", "provenance",
}  # fmt: skip


def tiny() -> dict[str, list[tuple]]:
    """Two requests one after the other and one that was turned away. The first: 3 tokens at 1, 2, 4 s; the second
    one token at 6 s, and half of its prompt was cached."""
    return {
        "requests": [
            (0, "a", "", "chat", "m", 0.0, 1.0, 4.0, 100, 3, 0, "finished", ""),
            (1, "a", "", "chat", "m", 5.0, 6.0, 6.0, 50, 1, 25, "finished", ""),
            (2, "a", "", "chat", "m", 5.0, None, None, 70, 0, 0, "rejected", "quota"),
        ],
        "jobs": [
            (0, 0, "generate", "m", "p", "p/0", 0.0, 0.5, 1.0, 4.0, 100, 3, 0, 1, "finished"),
            (1000, 1, "generate", "m", "p", "p/0", 5.0, 5.0, 6.0, 6.0, 50, 1, 25, 0, "finished"),
        ],
        "plans": [
            ("p/0", "pass", 0.5, 1.0, 1, 0, 100, 0, 7, 0, 0.5, 0),
            ("p/0", "pass", 1.0, 4.0, 2, 1, 0, 0, 8, 0, 1.0, 0),
            ("p/0", "pass", 5.0, 6.0, 1, 0, 25, 0, 4, 0, 1.0, 0),
        ],
        "spans": [("p/0", 0, 0, 0, 2, 1.0, True), ("p/0", 0, 1000, 2, 2, 6.0, True)],
    }


def told(tables=None, **more):
    return summarise(tiny() if tables is None else tables, engine={}, provenance={}, **more)


def flat(summary):
    figures = pd.json_normalize(summary).iloc[0].to_dict()
    return {name: value for name, value in figures.items() if isinstance(value, float | int)}


def test_latencies_by_hand():
    summary = told()
    assert [summary[f"{name}_s"]["mean"] for name in ("ttft", "tpot", "e2e", "queue", "itl")] == [
        1.0,
        1.5,
        2.5,
        0.25,
        1.5,
    ]
    assert (summary["itl_s"]["p50"], summary["itl_s"]["max"]) == (1.5, 2.0)
    assert summary["duration_s"] == 6.0


def test_rates_are_over_the_stated_window():
    assert told()["throughput"]["total_tokens_per_s"] == pytest.approx((4 + 150) / 6)
    assert told(duration_s=10.0)["throughput"] == {
        "requests_per_s": 0.2, "output_tokens_per_s": 0.4, "total_tokens_per_s": pytest.approx(15.4),
    }  # fmt: skip


def test_a_rejected_request_is_a_missed_objective():
    slo = told(slo={"ttft_s": 1.0, "tpot_s": 2.0, "e2e_s": None}, duration_s=10.0)["slo"]
    assert slo == {"attainment": pytest.approx(2 / 3), "goodput_requests_per_s": 0.2}


def test_one_token_cannot_miss_the_time_per_token():
    assert told(slo={"tpot_s": 1.0})["slo"]["attainment"] == pytest.approx(1 / 3)


def test_no_objective_no_attainment():
    assert told()["slo"] == {"attainment": None, "goodput_requests_per_s": None}


@pytest.mark.parametrize(("slo", "words"), [({"ttft": 1.0}, "did you mean 'ttft_s'"), ({"ttft_s": -1.0}, "positive")])
def test_objectives_are_checked(slo, words):
    with pytest.raises(BadInput, match=words):
        told(slo=slo)


def test_cache_utilization_and_counts():
    summary = told(servers=2)
    assert summary["cache"]["hit_rate"] == pytest.approx(25 / 150)
    assert summary["utilization"]["busy"] == pytest.approx(4.5 / 12)
    server = summary["utilization"]["servers"]["p/0"]
    assert (server["busy_s"], server["peak_kv_blocks"]) == (4.5, 8)
    assert server["mean_decodes"] == pytest.approx(3 / 4.5)
    assert summary["preemptions"] == 1
    assert (summary["engine"]["plans"], summary["engine"]["passes"]) == (3, 4)


def test_plans_in_flight_at_once_count_once():
    plans = [("p/0", "pass", 0.0, 2.0, 1, 1, 0, 0, 0, 0, 2.0, 0), ("p/0", "pass", 1.0, 3.0, 1, 1, 0, 0, 0, 0, 2.0, 1)]
    assert told({"plans": plans}, duration_s=4.0)["utilization"]["busy"] == 0.75


def test_cost_needs_prices():
    assert set(told()["cost"].values()) == {None}
    price = {"usd_per_hour": 3.6, "idle_watts": 100, "busy_watts": 300, "pue": 1.5, "gco2_per_kwh": 360}
    joules = 1.5 * (100 * 6 + 200 * 4.5)
    found = told(prices={"p/0": price})["cost"]
    bill = {"usd": 0.006, "joules": joules, "gco2": joules / 10_000, "idle_joules": 1.5 * 100 * 6}
    per_mtok = {f"{name}_per_mtok": bill[name] / 4 * 1e6 for name in ("usd", "joules")}
    assert found == pytest.approx(bill | per_mtok)
    with pytest.raises(BadInput, match="unknown price"):
        told(prices={"p/0": {"usd": 1}})


def test_every_server_costs_what_its_own_list_says():
    dear, cheap = {"usd_per_hour": 3600.0, "idle_watts": 50, "busy_watts": 90}, {"usd_per_hour": 360.0}
    found = told(prices={"p/0": dear, "p/1": cheap}, duration_s=10.0)["cost"]
    assert found["usd"] == pytest.approx(10 + 1)
    assert (found["joules"], found["gco2"], found["joules_per_mtok"]) == (None, None, None)
    idle = told(prices={"p/0": dear, "p/1": dear}, duration_s=10.0)["cost"]
    assert idle["joules"] == pytest.approx(2 * 50 * 10 + 40 * 4.5)
    assert told(prices={"p/1": cheap})["cost"]["usd"] is None, "a server that ran has no price"


def test_rows_frames_and_files_tell_the_same(tmp_path):
    rows = Toy(3).rows
    write_tables(rows, tmp_path, "sim")
    frames = {name: pd.DataFrame(table, columns=list(TABLES[name])) for name, table in rows.items()}
    expected = told(rows, slo={"e2e_s": 1.0})
    for tables in (frames, read_tables(tmp_path)):
        assert flat(told(tables, slo={"e2e_s": 1.0})) == pytest.approx(flat(expected), rel=1e-12)


def test_order_of_rows_does_not_matter():
    rows = Toy(4).rows
    shuffled = {name: table if name == "plans" else table[::-1] for name, table in rows.items()}
    left, right = told(rows), told(shuffled)
    for name in ("ttft_s", "tpot_s", "itl_s", "e2e_s", "queue_s"):
        assert left[name] == pytest.approx(right[name])


def test_an_empty_run_has_every_key_and_no_figures(tmp_path):
    summary = told({})
    assert summary.keys() >= KEYS
    assert summary["requests"] == {"offered": 0} | dict.fromkeys(STATUSES, 0)
    assert summary["ttft_s"] == dict.fromkeys(STATISTICS)
    assert summary["throughput"]["requests_per_s"] is None
    assert json.loads(write_summary(tmp_path, summary).read_text()) == summary


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(BadInput, match="cannot be written"):
        write_summary(tmp_path / "absent", told())


def test_offered_requests_are_all_accounted_for():
    counts = told()["requests"]
    assert counts["offered"] == sum(counts[name] for name in STATUSES) == 3

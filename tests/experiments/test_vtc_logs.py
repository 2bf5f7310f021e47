"""Floor 6: the VTC artifact's logs and the same queue objects, on one load of four."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from airi_sim.results.fairness import fairness, tenants
from experiments import vtc_logs
from tests.results.test_fairness import tables


@pytest.fixture(scope="module")
def found(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, dict[str, float]], Path]:
    """Figures by order of service, and the folder."""
    if not (data_dir / "vtc").is_dir():
        pytest.skip("the logs are not there")
    folder = tmp_path_factory.mktemp("vtc")
    words = ["vtc_logs.loads=[overload]", f"data.dir={data_dir}", f"hydra.run.dir={folder}"]
    assert vtc_logs.main(words) == 0
    with (folder / "vtc_logs.csv").open() as file:
        rows = {row.pop("order"): row for row in csv.DictReader(file)}
    return {order: {k: float(v) for k, v in row.items() if k != "load"} for order, row in rows.items()}, folder


def test_vtc_keeps_its_bound_in_both_worlds_and_fcfs_in_neither(found):
    """685,364 and 14,314 were worked out from the logs by other code."""
    for world in ("measured", "simulated"):
        vtc, fcfs = (found[0][order][f"{world}_difference"] for order in ("VTC", "FCFS"))
        assert vtc < vtc_logs.BOUND < fcfs
        assert (vtc, fcfs) == pytest.approx((14_314, 685_364), rel=0.02)


def test_the_service_curves_of_clients_are_within_five_percent(found):
    for order in ("FCFS", "VTC"):
        assert found[0][order]["curve_error"] < 0.05
        assert found[0][order]["simulated_s"] == pytest.approx(found[0][order]["measured_s"], rel=0.03)
    assert (found[1] / "vtc_logs.png").stat().st_size > 10_000


@pytest.mark.usefixtures("found")
def test_the_wrong_order_of_service_is_told_from_the_right_one(data_dir, monkeypatch, tmp_path):
    """The check bites: FCFS in place of VTC does not reproduce the log of VTC."""
    monkeypatch.setitem(vtc_logs.ORDERS, "VTC", "fcfs")
    words = ["vtc_logs.loads=[overload]", f"data.dir={data_dir}", f"hydra.run.dir={tmp_path}"]
    assert vtc_logs.main(words) == 0
    with (tmp_path / "vtc_logs.csv").open() as file:
        wrong = next(row for row in csv.DictReader(file) if row["order"] == "VTC")
    assert float(wrong["simulated_difference"]) > vtc_logs.BOUND
    assert float(wrong["curve_error"]) > 0.1


def test_the_difference_grows_to_the_figure_of_the_summary():
    """Over all moments at which something changes, the curve's height is the exact figure."""
    jobs = [
        (name, 0.0, t, t, t + 3.0, 100, 5) for t, name in zip(map(float, range(1, 13)), "aababbbaabab", strict=True)
    ]
    made = tables(jobs)
    clients = tenants(*made, end_s=20.0)
    times = np.union1d(np.arange(0, 20, 0.25), np.nextafter(np.arange(1, 13, dtype=float), 0))
    exact = fairness(*made, end_s=20.0)["max_service_difference"]
    assert vtc_logs.growth(clients, times).max() == pytest.approx(exact)


@pytest.mark.parametrize("words", ["vtc_logs.loads=[]", "vtc_logs.loads=[absent]", "data.dir=nowhere"])
def test_without_logs_it_says_so(words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert vtc_logs.main([words, f"hydra.run.dir={tmp_path}/x"]) == 2
    assert capsys.readouterr().err.startswith("vtc_logs: ")
    assert not (tmp_path / "x").exists()

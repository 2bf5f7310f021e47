"""Floor 6: orders of a queue on the same labelled requests; small, without the trace, so that it runs anywhere."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from airi_sim.results.run import load
from airi_sim.workbench.config import load_config, plain
from experiments import queues

SMALL = ["workload.limit=250", "queues.loads=[0.5,6.0]", "data.dir=nowhere", "server.max_num_seqs=16"]
ORDERS = (
    "fcfs", "priority_aging", "edf", "lars", "drr", "vtc", "sjf", "predicted_sjf", "perfect_sjf", "las", "mlfq",
    "perfect_srpt",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("queues")
    assert queues.main([*SMALL, f"hydra.run.dir={place}"]) == 0
    return place


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[tuple[str, float], dict[str, float]]:
    with (folder / "queues.csv").open() as file:
        rows = [(row.pop("order"), row) for row in csv.DictReader(file)]
    return {(order, float(row["load"])): {key: float(value) for key, value in row.items()} for order, row in rows}


def test_it_writes_a_row_an_order_and_load_and_a_picture(folder: Path, found: dict[tuple[str, float], object]) -> None:
    assert [*found] == [(order, at) for at in (0.5, 6.0) for order in ORDERS]
    assert (folder / "queues.png").stat().st_size > 10_000


def test_every_order_sees_the_same_requests_at_the_same_moments(folder: Path) -> None:
    what = ["tenant", "arrival_s", "prompt_tokens", "output_tokens"]
    runs = [load(folder / order / "load-6").requests.set_index("request").sort_index() for order in ORDERS]
    assert all(run[what].equals(runs[0][what]) and (run.status == "finished").all() for run in runs)
    shares = runs[0].tenant.value_counts(normalize=True)
    assert shares["batch"] == pytest.approx(0.5, abs=0.1) and shares["chat"] == pytest.approx(0.3, abs=0.1)


def test_the_figures_are_ordered_as_their_orders_promise(found: dict[tuple[str, float], dict[str, float]]) -> None:
    """Far above what the replica can serve, so no noise of the sample hides it."""
    at = {order: found[order, 6.0] for order in ORDERS}
    assert at["vtc"]["service_apart"] < 0.5 * at["fcfs"]["service_apart"]
    assert at["perfect_sjf"]["slowdown_mean"] < at["fcfs"]["slowdown_mean"]
    assert at["las"]["ttft_mean_s"] < at["fcfs"]["ttft_mean_s"] and at["las"]["preemptions"] > 0
    assert at["edf"]["in_time"] > at["fcfs"]["in_time"]
    assert at["fcfs"]["preemptions"] == 0
    assert all(found[order, 0.5]["e2e_mean_s"] < at[order]["e2e_mean_s"] for order in ORDERS)
    assert all(row["slowdown_mean"] > 1 for row in found.values())


def test_labels_change_with_the_seed_and_nothing_else() -> None:
    one, again, other = (
        queues.labelled(plain(load_config(["experiment=queues", *SMALL, f"seed={seed}", "workload.seed=0"])))
        for seed in (1, 1, 2)
    )
    assert one == again
    assert [item.request.tenant for item in one] != [item.request.tenant for item in other]
    assert [(i.request.arrival, i.output_tokens) for i in one] == [(i.request.arrival, i.output_tokens) for i in other]


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("queues.loads=[]", "queues.loads must be a list"),
        ("queues.loads=3", "queues.loads must be a list"),
        ("queues.sets.fcfs=3", "queues.sets.fcfs must be"),
        ("queues.tenants.chat=3", "queues.tenants.chat needs share"),
        ("queues.sets.fcfs.queue=fcsf", "did you mean 'fcfs'"),
        ("queues.loads=[2,0]", "queues.loads"),
        ("queues.tenants.chat.share=-1", "share"),
        ("~queues.tenants.chat.deadline_s", "deadline_s"),
    ],
)
def test_what_cannot_run_says_why(word: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert queues.main([*SMALL, word, f"hydra.run.dir={tmp_path / 'q'}"]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "q").exists()

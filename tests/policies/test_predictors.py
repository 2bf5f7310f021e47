"""Predictors: what they know, what they learn, and how a run gets one that knows the truth."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest
from hydra.utils import get_class
from omegaconf import OmegaConf

import airi_sim
from airi_sim.core.errors import BadInput
from airi_sim.policies.predictors import Bucketed, History, Noisy, Perfect
from tests.policies.fakes import job

FILES = sorted((Path(__file__).parents[2] / "conf" / "predictor").glob("*.yaml"))
SMALL = ["workload=poisson", "workload.rate=8", "workload.n=150", "server.max_num_seqs=4"]


def told(predictor: Any, lengths: Callable[[Any], int] = lambda asked: 10 + asked.request) -> Any:
    predictor.reveal(lengths)
    return predictor


def test_perfect_says_the_truth_and_nothing_before_it_is_told() -> None:
    with pytest.raises(BadInput, match="reveal"):
        Perfect().predict(job(3))
    assert told(Perfect()).predict(job(3)) == 13


def test_noise_is_lognormal_and_the_same_whenever_asked() -> None:
    predictor = told(Noisy(seed=1, sigma=0.5), lambda _: 1000)
    logs = [np.log(predictor.predict(job(id)) / 1000) for id in range(2000)]
    assert abs(mean(logs)) < 0.04
    assert stdev(logs) == pytest.approx(0.5, rel=0.05)
    assert told(Noisy(1), lambda _: 1000).predict(job(7)) == predictor.predict(job(7))
    assert told(Noisy(2), lambda _: 1000).predict(job(7)) != predictor.predict(job(7))
    assert told(Noisy(1, sigma=0.0)).predict(job(3)) == 13


def test_buckets_by_hand() -> None:
    predictor = told(Bucketed(0, edges=[10, 20, 40]), lambda asked: asked.request)
    assert [predictor.predict(job(length)) for length in (1, 10, 11, 40, 41, 500)] == [10, 10, 20, 40, 80, 80]


def test_a_bucket_is_missed_as_often_as_it_says_and_by_one() -> None:
    predictor = told(Bucketed(0, edges=[10, 20, 40], accuracy=0.7), lambda _: 15)
    said = [predictor.predict(job(id)) for id in range(3000)]
    assert said.count(20) / 3000 == pytest.approx(0.7, abs=0.03)
    assert {*said} == {10, 20, 40}
    assert said.count(10) / 3000 == pytest.approx(0.15, abs=0.03)


def test_history_is_the_mean_of_what_finished_by_tenant() -> None:
    predictor = History(first=50, decay=0.0)
    for tokens in (10, 20, 60):
        predictor.learn(job(1, tenant="a"), tokens)
    assert predictor.predict(job(2, tenant="a")) == pytest.approx(30)
    assert predictor.predict(job(2, tenant="b")) == 50
    assert predictor.predict(job(2, tenant="b", budget=8)) == 8
    shared = History(by="", decay=0.5)
    for tokens in (10, 20, 60):
        shared.learn(job(1, tenant=str(tokens)), tokens)
    assert shared.predict(job(2)) == pytest.approx(37.5)  # 10, then 15, then half of 15 and 60


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_yaml_names_every_parameter_with_its_default(path: Path) -> None:
    written = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    assert isinstance(written, dict)
    cls = get_class(written.pop("_target_"))
    parameters = inspect.signature(cls).parameters
    assert set(written) == set(parameters)
    for name, parameter in parameters.items():
        default = written[name] if parameter.default is inspect.Parameter.empty else parameter.default
        assert written[name] == (list(default) if isinstance(default, tuple) else default)
    assert cls.__name__.lower() == path.stem


def test_a_run_with_the_truth_is_asked_for_by_name_warned_of_and_better(tmp_path: Path) -> None:
    figures = {}
    for name in ("perfect", "history"):
        folder = tmp_path / name
        more = ["policy/queue=srpt", "policy/batcher=preemptive", f"policy.queue.predictor={name}"]
        airi_sim.run([*SMALL, *more, f"hydra.run.dir={folder}"])
        figures[name] = json.loads((folder / "summary.json").read_text())
    warnings = figures["perfect"]["provenance"]["warnings"]
    assert any("Srpt with predictor Perfect: true output lengths are known to it" in text for text in warnings)
    assert not any("true output lengths" in text for text in figures["history"]["provenance"]["warnings"])
    assert figures["perfect"]["e2e_s"]["mean"] < figures["history"]["e2e_s"]["mean"]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("policy.queue.predictor=perfct", "did you mean 'perfect'"),
        ("policy.queue.predictor=7", "policy.queue.predictor=7"),
        ("predictor=perfect", "no choice of a whole run"),
    ],
)
def test_a_wrong_predictor_is_refused_in_one_sentence(override: str, says: str) -> None:
    with pytest.raises(BadInput, match=r"^[^\n]*\.$|\?$") as error:
        airi_sim.run([*SMALL, "policy/queue=srpt", override])
    assert says in str(error.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Noisy(0, sigma=-1),
        lambda: Bucketed(0, edges=[]),
        lambda: Bucketed(0, edges=[4, 2]),
        lambda: Bucketed(0, accuracy=1.5),
        lambda: History(decay=1.0),
        lambda: History(first=0),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(make: Callable[[], Any]) -> None:
    with pytest.raises(BadInput, match=r"^[^\n]*\.$"):
        make()

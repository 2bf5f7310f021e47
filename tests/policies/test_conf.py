"""Every yaml of a policy or predictor becomes the object it names, with the defaults of its constructor; every class
has exactly one."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

import airi_sim.policies
from airi_sim.policies.queues.waiting import Keyed, Patient
from airi_sim.workbench.plugins import METHODS

CONF = Path(__file__).parents[2] / "conf"
KINDS = {**{f"policy/{kind}": methods for kind, methods in METHODS.items()}, "predictor": ("predict", "learn")}
FILES = [path for group in KINDS for path in sorted((CONF / group).glob("*.yaml"))]
SHARED = {Keyed, Patient}
"""Code that queues share; no orders of their own."""


def classes() -> Iterator[type]:
    """Every class of the package that could be used as some kind of policy."""
    for module in pkgutil.walk_packages(airi_sim.policies.__path__, "airi_sim.policies."):
        for _, cls in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            usable = any(all(hasattr(cls, method) for method in methods) for methods in KINDS.values())
            if cls.__module__ == module.name and usable and cls not in SHARED:
                yield cls


def test_every_policy_has_exactly_one_yaml() -> None:
    """And the reverse: a yaml that names a class elsewhere, or one that another yaml names, would not be in step."""
    named = Counter(get_class(OmegaConf.load(path)._target_) for path in FILES)
    assert len(named) > 60
    assert named == Counter(classes())
    groups = {path.parent.relative_to(CONF / "policy").name for path in (CONF / "policy").glob("*/*.yaml")}
    assert groups == set(METHODS)


def test_the_names_of_the_contract_exist() -> None:
    names = {f"{path.parent.name}/{path.stem}" for path in FILES}
    assert names >= {
        "router/round_robin", "router/random", "router/jsq", "router/p2c", "router/prefix_affinity", "queue/fcfs",
        "queue/sjf", "queue/priority_aging", "queue/vtc", "admission/always", "admission/token_bucket",
        "evictor/last_in", "evictor/lru", "fault/retry", "fault/fail", "model_router/fixed",
    }  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_yaml_becomes_its_policy(path: Path) -> None:
    config = OmegaConf.create({"seed": 11, "it": OmegaConf.load(path)})
    policy = instantiate(config.it)
    assert type(policy) is get_class(config.it._target_)
    assert all(callable(getattr(policy, method)) for method in KINDS[path.parent.relative_to(CONF).as_posix()])


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_yaml_names_every_parameter_with_its_default(path: Path) -> None:
    """What the file says is what the class does without it; seeds come from the run."""
    written = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    assert isinstance(written, dict)
    parameters = inspect.signature(get_class(written.pop("_target_"))).parameters
    assert set(written) == set(parameters)
    defaults = {name: p.default for name, p in parameters.items() if p.default is not inspect.Parameter.empty}
    assert {name: tuple(v) if isinstance(v := written[name], list) else v for name in defaults} == defaults
    assert written.get("seed", "${seed}") == "${seed}"

"""Every yaml of these groups becomes the object it names, with the defaults of its constructor."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

CONF = Path(__file__).parents[2] / "conf" / "policy"
METHODS = {
    "router": "route",
    "queue": "push",
    "admission": "admit",
    "evictor": "victim",
    "fault": "lost",
    "model_router": "choose",
}
FILES = [path for group in METHODS for path in sorted((CONF / group).glob("*.yaml"))]


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
    assert callable(getattr(policy, METHODS[path.parent.name]))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_yaml_names_every_parameter_with_its_default(path: Path) -> None:
    """What the file says is what the class does without it; seeds come from the run."""
    written = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    assert isinstance(written, dict)
    parameters = inspect.signature(get_class(written.pop("_target_"))).parameters
    assert set(written) == set(parameters)
    defaults = {name: p.default for name, p in parameters.items() if p.default is not inspect.Parameter.empty}
    assert {name: written[name] for name in defaults} == defaults
    assert written.get("seed", "${seed}") == "${seed}"

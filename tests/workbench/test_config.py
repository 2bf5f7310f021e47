"""From words to a checked config: Hydra's grammar, open policy keys, and a rule for every key there is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import pytest
from omegaconf import DictConfig, OmegaConf

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import Predictor
from airi_sim.core.types import Job
from airi_sim.policies.queues import Sjf
from airi_sim.workbench.annotations import check_arguments, fits, words
from airi_sim.workbench.build import build
from airi_sim.workbench.config import load_config, plain
from airi_sim.workbench.objects import instantiate
from airi_sim.workbench.paths import options
from airi_sim.workbench.plugins import maker
from airi_sim.workbench.schema import KEYS, NAMED, POOL, SERVER, check, defaults

SMALL = ("model=tiny", "accelerator=l4", "workload.n=3")
GROUPS = ("workload", "model", "accelerator", "serving")


def config(*overrides: str) -> dict[str, Any]:
    return plain(load_config(overrides))


# -- every key has a rule


def leaves(node: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for name, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{path}{name}.")
        elif not str(name).startswith("_"):
            yield f"{path}{name}"


def test_every_key_of_config_yaml_has_a_rule_and_every_rule_a_key() -> None:
    ruled = {*KEYS, *[f"server.{k}" for k in SERVER], *[f"pool.{k}" for k in POOL], *NAMED}
    there = {key for key in leaves(defaults()) if not key.startswith("services.")}
    assert there - ruled == set()
    of_groups = {"workload.concurrency", "workload.models", "services", *[f"pool.{k}" for k in POOL]}
    assert ruled - there - of_groups == set()


@pytest.fixture(scope="module")
def small() -> DictConfig:
    return load_config(SMALL)


NONSENSE = [None, ["nonsense"]]
"""No key takes a list of this."""


@pytest.mark.parametrize("key", [key for key in leaves(defaults()) if not key.startswith("services.")])
def test_nonsense_is_refused_for_every_key_of_config_yaml_and_named(key: str, small: DictConfig) -> None:
    loaded = deepcopy(small)
    OmegaConf.update(loaded, key, NONSENSE, merge=False)
    with pytest.raises(BadInput) as caught:
        check(loaded)
    assert key in str(caught.value)


def group_cases() -> Iterator[tuple[str, str]]:
    for group in GROUPS:
        for choice in options(group):
            if (group, choice) not in (("model", "hf"), ("accelerator", "profile"), ("workload", "trace")):
                yield group, choice


@pytest.mark.parametrize(("group", "choice"), [*group_cases()])
def test_nonsense_is_refused_for_every_key_of_every_choice(group: str, choice: str) -> None:
    base = config(*[word for word in SMALL if group not in word], f"{group}={choice}")
    if group == "workload":
        base["workload"]["limit" if "limit" in base["workload"] else "n"] = 3
    accepted = []
    for key in leaves(base[group]):
        broken = deepcopy(base)
        _set(broken[group], key, NONSENSE)
        try:
            build(broken)
        except BadInput:
            continue
        accepted.append(key)
    assert [key for key in accepted if not _unused(group, key)] == []


def _set(node: dict[str, Any], key: str, value: Any) -> None:
    *path, name = key.split(".")
    for part in path:
        node = node[part]
    node[name] = value


def _unused(group: str, key: str) -> bool:
    """Keys that making the objects does not read: the rest of a Hugging Face config, the stand-in of a trace that is
    there, and what has a rule of its own."""
    return (group == "model" and key.startswith("config.")) or key.startswith("stand_in.") or f"{group}.{key}" in KEYS


@pytest.mark.parametrize("group", ["backend", "experiment", "policy/queue", "policy/admission"])
def test_every_choice_composes_and_keeps_the_rules(group: str) -> None:
    for choice in options(group):
        assert config(f"{group}={choice}")["seed"] == 0


# -- grammar


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("workload.tenants={a: 1, b: 2.5}", {"a": 1, "b": 2.5}),
        ("workload.tenants={a b: 1}", {"a b": 1}),
        ("workload.name='x=y,z'", "x=y,z"),
        ('workload.name="it\'s"', "it's"),
        ("workload.name=a\\,b", "a,b"),
        ("workload.input={kind: empirical, values: [3, 4], mean: null, sigma: null}", [3, 4]),
        ("workload.seed=${seed}", 9),
        ("workload.n=1_000", 1000),
    ],
)
def test_values_in_hydras_grammar(override: str, value: Any) -> None:
    found = config("seed=9", override)["workload"][override.split("=")[0].split(".")[1]]
    assert (found["values"] if isinstance(found, dict) and "values" in found else found) == value


def test_the_same_key_twice_the_last_one_counts() -> None:
    assert config("seed=1", "seed=2")["seed"] == 2


# -- keys of policies are open


def test_a_new_target_drops_the_arguments_of_the_old_class() -> None:
    chosen = config("policy/queue=vtc", "policy.queue._target_=mine.Queue", "policy.queue.patience=2")
    assert chosen["policy"]["queue"] == {"_target_": "mine.Queue", "patience": 2}


def test_a_mapping_with_a_target_does_so_too() -> None:
    chosen = config("policy/queue=vtc", "policy.queue={_target_: mine.Queue, patience: 2}")
    assert chosen["policy"]["queue"] == {"_target_": "mine.Queue", "patience": 2}


def test_without_a_new_target_the_other_arguments_stay() -> None:
    assert config("policy/queue=vtc", "policy.queue.w_out=3")["policy"]["queue"]["w_in"] == 1


def test_a_pool_may_have_policies_of_its_own_by_name_or_as_a_node() -> None:
    pools = "{a: {policy: {queue: sjf}}, b: {policy: {queue: {_target_: airi_sim.policies.queues.Vtc, w_in: 3}}}}"
    world = build(config(*SMALL, f"pools={pools}"))
    assert [type(server.queue).__name__ for server in world.runtime.servers] == ["Sjf", "Vtc"]


class Tens:
    """A predictor that is always wrong."""

    def __init__(self, tokens: int = 10) -> None:
        self.tokens = tokens

    def predict(self, job: Job) -> float:
        return float(self.tokens)

    def learn(self, job: Job, tokens_out: int) -> None: ...


def test_an_argument_with_a_target_becomes_an_object_of_its_own_for_each_replica() -> None:
    node = {"_target_": "airi_sim.policies.queues.Sjf", "predictor": {"_target_": f"{__name__}.Tens", "tokens": 4}}
    make = maker("queue", node)
    one, other = make(), make()
    assert isinstance(one, Sjf) and one.predictor.tokens == 4 and one.predictor is not other.predictor
    with pytest.raises(BadInput, match=r"policy\.queue\.predictor\.tokens=x .* a whole number"):
        maker("queue", {**node, "predictor": {"_target_": f"{__name__}.Tens", "tokens": "x"}})
    with pytest.raises(BadInput, match=r"policy\.queue\.predictor=perfect .*_target_"):
        maker("queue", {**node, "predictor": "perfect"})


# -- annotations


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (int, [0, -3], [True, 1.0, "1", None, float("nan")]),
        (float, [0, 1.5, float("inf")], [True, "1", None, float("nan")]),
        (bool, [True, False], [0, 1, "true", None]),
        (str, ["", "a"], [1, None, ["a"]]),
        (None, [None], [0, ""]),
        (int | None, [1, None], ["", 1.5]),
        (Literal["a", 2], ["a", 2], ["b", 1]),
        (Mapping[str, float], [{}, {"a": 1}], [[], {"a": "x"}, None]),
        (Sequence[int], [[], [1]], [{}, "ab", ["x"], 1]),
        (Mapping[str, Any] | int, [{}, 3], ["a"]),
        (Predictor, [Tens()], ["a", 1, {}, None]),
        (Any, [1, None, "a"], []),
        (Path, ["a", None], []),
    ],
)
def test_what_fits_an_annotation(annotation: Any, good: list[Any], bad: list[Any]) -> None:
    assert [value for value in good if not fits(value, annotation)] == []
    assert [value for value in bad if fits(value, annotation)] == []
    assert words(annotation)


def test_annotations_that_cannot_be_read_check_names_only() -> None:
    def function(a: Unheard, b: int = 1) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    check_arguments(function, {"a": 1, "b": "x"}, "key", "owner")
    with pytest.raises(BadInput, match=r"unknown key 'key\.c': owner has a, b"):
        check_arguments(function, {"a": 1, "c": 1}, "key", "owner")


def test_what_a_constructor_raises_is_an_error_of_the_input() -> None:
    with pytest.raises(BadInput, match=r"backend: .* cannot be made .*KeyError: 'x'"):
        instantiate({"_target_": f"{__name__}.raises"}, "backend")


def raises() -> None:
    raise KeyError("x")

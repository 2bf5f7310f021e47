"""check_policy lets every built-in pass, and names the law that each of the broken policies breaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import airi_sim
from airi_sim.core.errors import BadInput, PolicyError
from airi_sim.core.types import Job
from airi_sim.policies.admission import TokenBucket
from airi_sim.policies.batchers import ChunkedPrefill, PrefillFirst, Static
from airi_sim.policies.queues import Fcfs, PriorityAging, Sjf, Vtc
from airi_sim.workbench.check import LAWS, check_policy
from airi_sim.workbench.laws.ran import run
from airi_sim.workbench.laws.suite import Subject, try_truth
from airi_sim.workbench.laws.worlds import REGIMES, draw
from airi_sim.workbench.plugins import METHODS
from tests.fixtures import broken_policies
from tests.fixtures.broken_policies import BROKEN, Broken

CONF = Path(__file__).parents[2] / "conf" / "policy"
BUILT_IN = [path for kind in METHODS for path in sorted((CONF / kind).glob("*.yaml"))]


def node(path: Path) -> dict[str, Any]:
    config = OmegaConf.to_container(OmegaConf.create({"seed": 1, "it": OmegaConf.load(path)}), resolve=True)
    assert isinstance(config, dict)
    return dict(config["it"])


@pytest.mark.parametrize("path", BUILT_IN, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_built_in_keeps_all_laws(path: Path) -> None:
    arguments = node(path)
    report = check_policy(arguments.pop("_target_"), worlds=12, **arguments)
    assert report.ok, report
    assert report.kind == path.parent.name


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        (PriorityAging, {"patience": 0.4}),
        (Vtc, {"weights": {"t0": 3.0, "t1": 0.1}}),
        (ChunkedPrefill, {"tokens": 48}),
        (Static, {"size": 3}),
        (TokenBucket, {"rate": 300.0, "capacity": 600.0}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_built_ins_with_arguments_that_bite_keep_all_laws(cls: Any, arguments: dict[str, Any]) -> None:
    report = check_policy(cls, worlds=6, **arguments)
    assert report.ok, report


@pytest.mark.parametrize("make", [lambda: ChunkedPrefill(tokens=48), lambda: PrefillFirst(tokens=32)])
def test_batchers_that_take_less_than_the_budget_are_fast_and_right(make: Any) -> None:
    """Regression: an arrival of which the batcher takes a small chunk, and a head whose cached prefix is evicted."""
    for seed in range(80):
        if seed % 4 >= 2:
            try_truth(Subject("batcher", "batcher", make), draw("batcher", seed))


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.make.__name__)
def test_a_broken_policy_is_caught_by_the_right_law(broken: Broken) -> None:
    report = check_policy(broken.make)
    assert not report.ok
    first = report.failures[0]
    assert (first.law, first.policy) == (broken.law, broken.make.__name__)
    assert broken.says in first.text
    assert f"FAILED {first.law}" in str(report) and broken.says in str(report)


def test_every_law_is_broken_by_some_fixture() -> None:
    assert {broken.law for broken in BROKEN} == {law.name for law in LAWS}
    assert len({broken.make for broken in BROKEN}) == len(BROKEN)


def test_the_example_is_small_shown_as_a_table_and_fails_again() -> None:
    failure = check_policy(broken_policies.LosesOnRequeue).failures[0]
    example = failure.example
    assert example is not None and len(example.items) <= 4
    lines = str(failure).splitlines()
    assert "request" in lines[2] and len(lines) == 3 + len(example.items)
    assert not check_policy(broken_policies.LosesOnRequeue, worlds=3).failures[0].text.startswith("policy")


def test_raise_on_failure_raises_the_first() -> None:
    with pytest.raises(PolicyError, match="MutatesTheJob breaks the law of purity"):
        check_policy(broken_policies.MutatesTheJob, worlds=1, raise_on_failure=True)


def test_it_is_part_of_the_package_and_says_the_same_twice() -> None:
    first, again = [airi_sim.check_policy(broken_policies.PeekRotates, worlds=6) for _ in range(2)]
    assert first.failures == again.failures


@pytest.mark.parametrize(
    ("cls", "arguments", "says"),
    [
        (Fcfs(), {}, "needs a class"),
        (dict, {}, "cannot tell what kind"),
        (TokenBucket, {"rate": 1.0}, "capacity"),
        (Fcfs, {"kind": "que"}, "did you mean 'queue'"),
        (Fcfs, {"worlds": 0}, "worlds"),
        ("airi_sim.policies.queues.Fcsf", {}, "did you mean 'Fcfs'"),
        ("no_such_module.Mine", {}, "no_such_module"),
    ],
)
def test_bad_input_is_one_clear_sentence(cls: Any, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says) as error:
        check_policy(cls, **arguments)
    assert "\n" not in str(error.value)


class Lifo(Fcfs):
    """Keeps all laws, and starves whoever came first."""

    def push(self, job: Job, now: float) -> None:
        self._jobs.appendleft(job)


class SilentSjf(Sjf):
    timeless = False


class SilentVtc(Vtc):
    stable = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("queue", "says"),
    [(Lifo, "it can starve"), (SilentSjf, "made no difference"), (SilentVtc, "asked before every pass")],
)
def test_notes_tell_what_no_law_forbids(queue: Any, says: str) -> None:
    report = check_policy(queue, worlds=8)
    assert report.ok, report
    assert any(says in note for note in report.notes)


def test_fcfs_has_no_notes() -> None:
    assert check_policy(Fcfs, worlds=4).notes == ()


def test_worlds_are_what_their_regime_says() -> None:
    """Else the laws would be tried on nothing."""
    preempted = dict.fromkeys(REGIMES, 0)
    for seed in range(40):
        world = draw("batcher", seed)
        preempted[world.regime] += run(world, {}).preemptions > 0
    assert preempted["idle"] == preempted["seats full"] == 0
    assert preempted["memory short"] >= 5 and preempted["overload"] >= 5
    routed = [draw("router", seed) for seed in range(40)]
    assert sum(bool(world.crashes) for world in routed) >= 10
    assert sum(bool(world.period) for world in routed) >= 5

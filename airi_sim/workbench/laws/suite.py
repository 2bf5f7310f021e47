"""The laws, and how a policy is held against them in one world."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from airi_sim.core.types import Job
from airi_sim.workbench.laws.ran import Breach, Choice, Ran, first_difference, run
from airi_sim.workbench.laws.witness import witnessed
from airi_sim.workbench.laws.worlds import World
from airi_sim.workbench.plugins import METHODS, TAKES

NOISE_S = 1e-6


class Law(NamedTuple):
    """A law by its name, and what it asks for."""

    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.name:13} {self.text}"


LAWS = (
    Law("protocol", "every method is there and takes what it is given; attributes and answers have the right type"),
    Law("conservation", "every request ends exactly once; no job, token or KV block is lost, doubled or left behind"),
    Law("determinism", "the same world twice: the same decisions at the same times"),
    Law("purity", "no clock, no unseeded randomness; jobs and views are read only; peek changes nothing"),
    Law(
        "truthfulness",
        "pass by pass and fast-forward agree: what it says of itself (timeless, stable, ...) holds",
    ),
    Law("progress", "every job of a finite workload is over some day: nobody is forgotten, nothing goes in circles"),
    Law("bounds", "token budget, seats, replicas that are up, running jobs, Verdicts: nothing else is chosen"),
)
"""In this order; what breaks several is reported under the first that sees it."""


@dataclass(frozen=True)
class Subject:
    """The policy on trial: its name, its kind, and how to make a fresh one."""

    name: str
    kind: str
    make: Callable[[], Any]


def check_protocol(subject: Subject) -> None:
    """Breach if the class by itself already breaks its protocol."""
    policy, other = subject.make(), subject.make()
    missing = [m for m in METHODS[subject.kind] if not callable(getattr(policy, m, None))]
    if missing:
        raise Breach("protocol", f"a {subject.kind} needs the method{'s' * (len(missing) > 1)} {', '.join(missing)}")
    if policy is other:
        raise Breach("protocol", "the same object came twice: each replica needs a policy of its own")
    for method, names in TAKES[subject.kind].items():
        _check_signature(policy, method, names)
    for flag in FLAGS.get(subject.kind, ()):
        value = getattr(policy, flag, False)
        if not isinstance(value, bool):
            raise Breach("protocol", f"attribute {flag} is {value!r}: it must be True or False")
    if subject.kind == "queue":
        _check_account(policy)


FLAGS = {"queue": ("timeless",), "batcher": ("greedy", "plain", "preempts")}


def _check_signature(policy: Any, method: str, names: tuple[str, ...]) -> None:
    function = getattr(policy, method, None)
    if function is None:
        return
    try:
        inspect.signature(function).bind(*names)
    except TypeError:
        raise Breach("protocol", f"{method} must take ({', '.join(names)})") from None


def _check_account(policy: Any) -> None:
    account = getattr(policy, "account", None)
    if account is None:
        return
    if account not in Job.__slots__:
        raise Breach("protocol", f"attribute account is {account!r}: it must be None or the name of a field of Job")
    if not callable(getattr(policy, "serve", None)):
        raise Breach("protocol", f"it sets account='{account}' but has no method serve to book it")


def try_world(subject: Subject, world: World) -> None:
    """Every law that needs a world; Breach for the first that is broken. The witness asks `peek` twice, the bare runs
    once: if those agree with each other and not with it, an impure peek made the difference."""
    watched = run(world, {subject.kind: witnessed(subject.kind, subject.make, subject.name)})
    bare = {subject.kind: subject.make}
    fast = run(world, bare)
    same("determinism", "the same world twice differs", fast, run(world, bare), 0.0)
    same("purity", "asking peek twice or once makes a difference", watched, fast, 0.0)
    try_truth(subject, world, fast)


def try_truth(subject: Subject, world: World, fast: Ran | None = None) -> None:
    """The law of truthfulness alone: pass by pass against fast-forward (`fast`, if that has been run already)."""
    bare = {subject.kind: subject.make}
    slow = run(world, bare, fast=False)
    same("truthfulness", "fast-forward and pass by pass differ", fast or run(world, bare), slow, NOISE_S)


def same(law: str, what: str, a: Ran, b: Ran, noise: float) -> None:
    """Breach of `law` if decisions differ, or times by more than `noise` seconds."""
    apart = first_difference(a, b)
    if apart is not None:
        raise Breach(law, f"{what}: {_told(apart[0])} in one, {_told(apart[1])} in the other")
    for request, times in a.times.items():
        for x, y in zip(times, b.times[request], strict=True):
            if (x is None) != (y is None) or (x is not None and y is not None and abs(x - y) > noise):
                raise Breach(law, f"{what}: request {request} at {x} s in one, at {y} s in the other")


def _told(choice: Choice | None) -> str:
    if choice is None:
        return "nothing more"
    return f"{choice.where} decides '{choice.choice}' for job {choice.job} before pass {choice.passes}"

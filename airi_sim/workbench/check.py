"""`airi_sim.check_policy`: the law suite on anybody's policy, in small random worlds, with the smallest example found.

report = check_policy(MyQueue, patience=2.0)
assert report.ok, report
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from airi_sim.core.errors import BadInput, PolicyError, unknown
from airi_sim.workbench.laws.probes import notes
from airi_sim.workbench.laws.ran import Breach
from airi_sim.workbench.laws.shrink import shrink
from airi_sim.workbench.laws.suite import LAWS, Law, Subject, check_protocol, try_truth, try_world
from airi_sim.workbench.laws.worlds import REGIMES, World, draw
from airi_sim.workbench.plugins import METHODS, find_class

__all__ = ["LAWS", "Failure", "Law", "Report", "check_policy"]

WORLDS = 24
CLAIMANTS = ("queue", "batcher")
"""Kinds that say something of themselves (timeless, stable, ...). A lie shows only where memory stops the head of
the queue while the order moves, so truthfulness is tried in MORE times as many worlds."""
MORE = 4


@dataclass(frozen=True)
class Failure:
    """A law that a policy broke: what happened, and the smallest world found in which it does (None: in all)."""

    law: str
    policy: str
    text: str
    example: World | None = None

    def __str__(self) -> str:
        told = f"{self.policy} breaks the law of {self.law}: {self.text}."
        return told if self.example is None else f"{told}\nsmallest example found, {self.example}"


@dataclass(frozen=True)
class Report:
    """What `check_policy` found. `failures` has at most one entry a law; `notes` are worth knowing and no failures."""

    policy: str
    kind: str
    worlds: int
    seconds: float
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every law held in every world."""
        return not self.failures

    def __str__(self) -> str:
        verdict = "keeps all laws" if self.ok else f"breaks {', '.join([f.law for f in self.failures])}"
        lines = [f"{self.policy} ({self.kind}) {verdict}: {self.worlds} worlds in {self.seconds:.1f} s"]
        broken = {failure.law for failure in self.failures}
        lines += [f"  {'FAILED' if law.name in broken else 'ok    '} {law}" for law in LAWS]
        lines += [f"  note: {note}." for note in self.notes]
        lines += [f"\n{failure}" for failure in self.failures]
        return "\n".join(lines)


def check_policy(
    cls: Any, *, kind: str | None = None, worlds: int = WORLDS, raise_on_failure: bool = False, **kwargs: Any
) -> Report:
    """Hold a policy against every law (`LAWS`) in `worlds` small random worlds; the same ones each time.

    `cls` is a class, a function that makes one, or "module.Class"; `kwargs` go to it. `kind` (router, queue, batcher,
    evictor, cache, admission, fault, model_router, placement) is read off its methods. Returns a Report:
    `assert report.ok, report`. With `raise_on_failure` the first failure is a PolicyError. A policy with an argument of
    one of these names goes in as `lambda: MyPolicy(kind=...)`.
    """
    if worlds < 1:
        raise BadInput(f"check_policy needs at least 1 world to try a policy in, not worlds={worlds}.")
    start = perf_counter()
    subject = _subject(cls, kind, kwargs)
    failures = _failures(subject, worlds)
    found: list[str] = []
    if subject.kind == "queue" and not failures:
        found = notes(subject.make, (draw("queue", seed) for seed in _crowded(0, MORE * worlds)))
    report = Report(subject.name, subject.kind, worlds, perf_counter() - start, tuple(failures), tuple(found))
    if raise_on_failure and failures:
        raise PolicyError(str(failures[0]))
    return report


def _failures(subject: Subject, worlds: int) -> list[Failure]:
    """The first breach of each law, cut down."""
    try:
        check_protocol(subject)
    except Breach as breach:
        return [Failure(breach.law, subject.name, breach.text)]
    failures: dict[str, Failure] = {}
    for seed in range(worlds):
        _try(subject, seed, try_world, failures)
        if "progress" in failures:
            break  # the other worlds would hang as long
    if not failures and subject.kind in CLAIMANTS:
        for seed in _crowded(worlds, (1 + MORE) * worlds):
            _try(subject, seed, try_truth, failures)
            if failures:
                break
    return [failures[law.name] for law in LAWS if law.name in failures]


def _try(subject: Subject, seed: int, laws: Callable[[Subject, World], None], failures: dict[str, Failure]) -> None:
    world = draw(subject.kind, seed)
    try:
        laws(subject, world)
    except Breach as breach:
        if breach.law not in failures:
            example, least = shrink(world, breach, lambda smaller: laws(subject, smaller))
            failures[breach.law] = Failure(breach.law, subject.name, least.text, example)


def _crowded(first: int, last: int) -> list[int]:
    """Seeds of worlds in which memory is short."""
    return [seed for seed in range(first, last) if seed % len(REGIMES) >= 2]


def _subject(cls: Any, kind: str | None, kwargs: dict[str, Any]) -> Subject:
    if isinstance(cls, str):
        cls = find_class(cls, "check_policy")
    if not callable(cls):
        raise BadInput(f"check_policy needs a class or a function that makes a policy, and got {cls!r}.")
    make = _maker(cls, kwargs)
    policy = make()
    if kind is not None and kind not in METHODS:
        raise unknown("kind of policy", kind, METHODS)
    return Subject(type(policy).__name__, kind or _kind_of(policy), make)


def _maker(cls: Callable[..., Any], kwargs: dict[str, Any]) -> Callable[[], Any]:
    name = getattr(cls, "__name__", repr(cls))
    try:
        inspect.signature(cls).bind(**kwargs)
    except ValueError:  # written in C: nothing is known about it
        pass
    except TypeError as error:
        raise BadInput(f"{name} cannot be made with these arguments ({error}): give them to check_policy.") from None
    return lambda: cls(**kwargs)


def _kind_of(policy: Any) -> str:
    """The kind whose methods it has, or has most of: one that was forgotten is for the law of protocol to name."""
    shares = {kind: _share(policy, kind) for kind in METHODS}
    best = max(shares, key=lambda kind: shares[kind])
    if shares[best] < 0.5:
        raise BadInput(
            f"cannot tell what kind of policy {type(policy).__name__} is: give it the methods of one, or say "
            f"kind=... ({', '.join(METHODS)})."
        )
    return best


def _share(policy: Any, kind: str) -> float:
    methods = METHODS[kind]
    return sum([callable(getattr(policy, method, None)) for method in methods]) / len(methods)

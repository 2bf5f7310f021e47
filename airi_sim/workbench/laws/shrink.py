"""From a failing world to the smallest one found in which the same law still breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from time import perf_counter

from airi_sim.workbench.laws.ran import Breach
from airi_sim.workbench.laws.worlds import World

SECONDS = 2.0
"""Time for one search; what was found until then is shown."""


def shrink(world: World, breach: Breach, attempt: Callable[[World], None]) -> tuple[World, Breach]:
    """Leave out what the breach does not need: accidents, replicas, then requests, in halves down to single ones."""
    give_up = perf_counter() + SECONDS
    smaller = True
    while smaller:
        smaller = False
        for candidate in _smaller(world):
            if perf_counter() > give_up:
                return world, breach
            found = _breach(candidate, breach.law, attempt)
            if found is not None:
                world, breach, smaller = candidate, found, True
                break
    return world, breach


def _breach(world: World, law: str, attempt: Callable[[World], None]) -> Breach | None:
    try:
        attempt(world)
    except Breach as breach:
        return breach if breach.law == law else None
    return None


def _smaller(world: World) -> Iterator[World]:
    """Worlds with less in them, the boldest cut first."""
    items = world.items
    size = len(items) // 2
    while size:
        for at in range(0, len(items), size):
            rest = items[:at] + items[at + size :]
            if rest:
                yield replace(world, items=rest)
        size //= 2
    if world.crashes:
        yield replace(world, crashes=world.crashes[1:])
    if world.cancels:
        yield replace(world, cancels=world.cancels[1:])
    if world.caching:
        yield replace(world, caching=False)
    if world.period:
        yield replace(world, period=0.0)
    if world.replicas > 1:
        crashes = tuple([crash for crash in world.crashes if crash[0] < world.replicas - 1])
        yield replace(world, replicas=world.replicas - 1, crashes=crashes)
    yield from _simpler(world)


def _simpler(world: World) -> Iterator[World]:
    """Smaller prompts and outputs, one request at a time."""
    for i, item in enumerate(world.items):
        request = item.request
        if item.output_tokens > 1:
            yield replace(world, items=_put(world, i, item._replace(output_tokens=item.output_tokens // 2)))
        if request.tokens > 1 and not request.prefix:
            less = replace(request, tokens=request.tokens // 2)
            yield replace(world, items=_put(world, i, item._replace(request=less)))


def _put(world: World, i: int, item: object) -> tuple:  # type: ignore[type-arg]
    return (*world.items[:i], item, *world.items[i + 1 :])

"""Whose cached prefix goes when room is needed. A unit is one hash of a prompt prefix, worth one or more KV blocks.

Only units that no running job refers to can go. Prompts that begin alike share their first units, so what is resident
is a radix tree of units; without its parent a unit is of no use to anybody. A job uses a unit with all those before it
and gives them back tail first, which is why plain LRU takes the leaves of that tree first by itself.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import count, islice

from airi_sim.core.errors import BadInput

Unit = Hashable
Entry = tuple[float, int, Unit]
"""Score, number of the stay among the idle ones (older first), unit."""

SLACK = 64


class Tree:
    """The resident units, and those that may go next: idle ones without a resident child, least score first."""

    def __init__(self) -> None:
        self._parents: dict[Unit, Unit] = {}
        self._children: dict[Unit, int] = {}
        self._idle: dict[Unit, Entry] = {}
        self._leaves: list[Entry] = []
        self._numbers = count()

    def use(self, prompt: Sequence[Unit], places: Sequence[int]) -> None:
        """A job refers to the units at these places of a prompt; those that were not resident are now."""
        for place in places:
            unit = prompt[place]
            self._idle.pop(unit, None)
            if unit not in self._parents:
                parent = prompt[place - 1] if place else None
                self._parents[unit] = parent
                self._children[parent] = self._children.get(parent, 0) + 1

    def free(self, unit: Unit, score: float) -> None:
        """Nobody refers to it any more."""
        self._idle[unit] = entry = (score, next(self._numbers), unit)
        if unit not in self._children:
            self._push(entry)

    def take(self) -> tuple[Unit, float]:
        """The unit that goes, and its score. If all leaves are in use, the one that is idle for the longest time."""
        while self._leaves:
            entry = heappop(self._leaves)
            if self._idle.get(entry[2]) is entry and entry[2] not in self._children:
                return self._cut(entry)
        return self._cut(next(iter(self._idle.values())))

    def _cut(self, entry: Entry) -> tuple[Unit, float]:
        score, _, unit = entry
        del self._idle[unit]
        parent = self._parents.pop(unit)
        self._children[parent] -= 1
        if not self._children[parent]:
            del self._children[parent]
            if parent in self._idle:
                self._push(self._idle[parent])
        return unit, score

    def _push(self, entry: Entry) -> None:
        """As a leaf; once void entries are the majority they are dropped, so memory follows what is resident."""
        if len(self._leaves) > 2 * len(self._idle) + SLACK:
            self._leaves = [old for old in self._leaves if self._idle.get(old[2]) is old]
            heapify(self._leaves)
        heappush(self._leaves, entry)


class Lru:
    """Least recently used first, the tail of a prompt before its head (automatic prefix caching of vLLM)."""

    def victims(self, idle: Mapping[Unit, None], n: int) -> Sequence[Unit]:
        return list(islice(idle, n))


class Radix:
    """The least recently used leaf of the radix tree first (SGLang; Zheng et al., NeurIPS 2024).

    Differs from `Lru` where two jobs compute the same head of a prompt at the same time: the cache keeps one of them,
    the other job refers to its own tail alone, and LRU may let go of the head before the tail. Here it may not.
    """

    def __init__(self) -> None:
        self._tree = Tree()

    def use(self, prompt: Sequence[Unit], places: Sequence[int]) -> None:
        self._tree.use(prompt, places)

    def free(self, units: Sequence[Unit]) -> None:
        for unit in units:
            self._tree.free(unit, 0.0)

    def victims(self, idle: Mapping[Unit, None], n: int) -> Sequence[Unit]:
        return [self._tree.take()[0] for _ in range(n)]


class Lfu:
    """Least frequently used leaf first, of equals the least recently used.

    `keep`: counts outlive eviction ("perfect" LFU; Breslau et al., INFOCOM 1999), so a prefix that comes back after an
    hour is known, at the price of a number for every unit ever seen. Else whatever is new starts at one and is the
    first to go ("in-cache" LFU), which is worse than LRU where conversations come and go.
    """

    def __init__(self, keep: bool = True) -> None:
        self.keep = keep
        self._counts: dict[Unit, int] = {}
        self._tree = Tree()

    def use(self, prompt: Sequence[Unit], places: Sequence[int]) -> None:
        self._tree.use(prompt, places)
        counts = self._counts
        for place in places:
            counts[prompt[place]] = counts.get(prompt[place], 0) + 1

    def free(self, units: Sequence[Unit]) -> None:
        for unit in units:
            self._tree.free(unit, self._counts[unit])

    def victims(self, idle: Mapping[Unit, None], n: int) -> Sequence[Unit]:
        gone = [self._tree.take()[0] for _ in range(n)]
        if not self.keep:
            for unit in gone:
                del self._counts[unit]
        return gone


class Gdsf:
    """Greedy dual size frequency (Cherkasova, HPL-98-69): the leaf with the least clock + uses * cost / size first.

    The clock is the score of the last unit that went, so what was popular long ago ages. All units have one size;
    `growth` is how much dearer each unit of a prompt is to compute again than the one before it, as a share of the
    cost of the first (attention looks back on all of them; 0 makes it LFU with dynamic aging). Counts start anew after
    eviction.
    """

    def __init__(self, growth: float = 0.0) -> None:
        if not growth >= 0:
            raise BadInput(f"growth of Gdsf is {growth}: no unit can be cheaper than those before it: give 0 or more.")
        self.growth = growth
        self._clock = 0.0
        self._worth: dict[Unit, float] = {}
        self._tree = Tree()

    def use(self, prompt: Sequence[Unit], places: Sequence[int]) -> None:
        self._tree.use(prompt, places)
        worth, growth = self._worth, self.growth
        for place in places:
            worth[prompt[place]] = worth.get(prompt[place], 0.0) + 1.0 + growth * place

    def free(self, units: Sequence[Unit]) -> None:
        for unit in units:
            self._tree.free(unit, self._clock + self._worth[unit])

    def victims(self, idle: Mapping[Unit, None], n: int) -> Sequence[Unit]:
        return [self._evict() for _ in range(n)]

    def _evict(self) -> Unit:
        unit, score = self._tree.take()
        self._clock = max(self._clock, score)
        del self._worth[unit]
        return unit

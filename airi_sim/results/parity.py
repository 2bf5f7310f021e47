"""Did two runs take the same decisions? If not, where did they part?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from airi_sim.results.columns import Columns

BEFORE = 3


class Choice(NamedTuple):
    """One decision at a place: in which pass, about which job, what was chosen."""

    pass_index: int
    job: int
    choice: str

    def __str__(self) -> str:
        return f"pass {self.pass_index}, job {self.job}: {self.choice}"


@dataclass(frozen=True)
class Parity:
    """Two runs decision by decision. `same` of `total` agree up to where each place parts for the first time; at the
    first parting, `index` counts decisions of `where`, `a` and `b` are the two sides (None: it took no more), and
    `before` holds the last decisions both took."""

    same: int
    total: int
    where: str = ""
    index: int = 0
    a: Choice | None = None
    b: Choice | None = None
    before: tuple[Choice, ...] = ()

    @property
    def identical(self) -> bool:
        """Every decision is the same."""
        return self.same == self.total

    def __str__(self) -> str:
        if self.identical:
            return f"{self.same:,}/{self.total:,} decisions identical"
        lines = [
            f"{self.same:,}/{self.total:,} decisions identical; "
            f"first divergence at {self.where}, decision {self.index}:",
            *(f"    both   {choice}" for choice in self.before),
            f"  > first  {self.a or 'no more decisions'}",
            f"  > second {self.b or 'no more decisions'}",
        ]
        return "\n".join(lines)


def first_divergence(a: Any, b: Any) -> Parity:
    """Compare two decision tables (rows of the log, data frames or Arrow tables), place by place, in order: pass
    index, job and choice must agree. Times do not matter. The first divergence is the earliest in `a`'s order."""
    left, right = _by_place(a), _by_place(b)
    places = sorted(left.keys() | right.keys())
    total = sum(max(len(left.get(place, ())), len(right.get(place, ()))) for place in places)
    partings = [_parting(place, left.get(place, []), right.get(place, [])) for place in places]
    same = sum(parting[1] for parting in partings)
    if same == total:
        return Parity(same, total)
    _, index, place = min(parting for parting in partings if parting[0] is not None)
    return _report(place, index, left.get(place, []), right.get(place, []), same, total)


Ordered = tuple[int, Choice]


def _by_place(table: Any) -> dict[str, list[Ordered]]:
    read = Columns("decisions", table)
    order, job, index = (read.ints(name).tolist() for name in ("order", "job", "pass_index"))
    found: dict[str, list[Ordered]] = {}
    for row in zip(order, read.texts("where"), index, job, read.texts("choice"), strict=True):
        found.setdefault(str(row[1]), []).append((row[0], Choice(row[2], row[3], str(row[4]))))
    return found


def _parting(place: str, a: Sequence[Ordered], b: Sequence[Ordered]) -> tuple[float | None, int, str]:
    """When (in the order of `a`, or of `b` where `a` ended), after how many equal decisions, where; None: never."""
    shorter = min(len(a), len(b))
    index = next((i for i in range(shorter) if a[i][1] != b[i][1]), shorter)
    rest = a[index:] or b[index:]
    return (rest[0][0] if rest else None), index, place


def _report(place: str, index: int, a: list[Ordered], b: list[Ordered], same: int, total: int) -> Parity:
    def at(side: list[Ordered]) -> Choice | None:
        return side[index][1] if index < len(side) else None

    before = tuple(choice for _, choice in a[max(0, index - BEFORE) : index])
    return Parity(same, total, place, index, at(a), at(b), before)

"""Services: the kinds of pools that are no token servers, and what their plans cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any, NamedTuple

from airi_sim.core.errors import BadInput
from airi_sim.core.types import Affine, Plan


class Service(NamedTuple):
    """One kind of service.

    batched  jobs run together in batches (BatchServer), else one job a slot (SlotServer)
    model    it runs a model
    many     the `items` of a call are inputs that are worked on one by one, so they are what is counted; else jobs are
    """

    batched: bool
    model: bool
    many: bool = False


SERVICES = {
    "embed": Service(batched=True, model=True),
    "rerank": Service(batched=True, model=True, many=True),
    "classify": Service(batched=True, model=True),
    "vision": Service(batched=True, model=True, many=True),
    "search": Service(batched=False, model=False),
    "features": Service(batched=False, model=False),
}
"""Texts to vectors; documents of a search in order of a question; a label for a text; images to tokens; nearest
vectors; values by key, behind a cache."""

SERVICE = ("constant", "per_token", "per_item")
"""Names of the constants of a service, in seconds."""
CACHED = "per_cached"
"""And one that only a service with a cache has: a thing found there instead of being worked on."""


class ServiceCost:
    """A plan takes constant + per_token * its tokens + per_item * its jobs (or items, where it has `many`) +
    per_cached * what its cache knew, in seconds."""

    __slots__ = ("constant", "many", "notes", "per_cached", "per_item", "per_token")

    def __init__(
        self,
        constant: float = 0.0,
        per_token: float = 0.0,
        per_item: float = 0.0,
        per_cached: float = 0.0,
        *,
        many: bool = False,
    ) -> None:
        if min(constant, per_token, per_item, per_cached) < 0 or constant + per_token + per_item <= 0:
            raise BadInput(
                "a service needs constant, per_token and per_item in seconds, none negative and not all zero; "
                f"got {constant}, {per_token}, {per_item}."
            )
        self.constant = constant
        self.per_token = per_token
        self.per_item = per_item
        self.per_cached = per_cached
        self.many = many
        self.notes: tuple[str, ...] = ()

    def affine(self, plan: Plan) -> Affine:
        """The same for every pass: nothing grows."""
        _, tokens, items, cached = units(plan, self.many)
        return Affine(
            self.constant + self.per_token * tokens + self.per_item * items + self.per_cached * cached,
        )


def units(plan: Plan, many: bool = False) -> tuple[int, int, int, int]:
    """What the constants of a service are multiplied with: 1, tokens, jobs (or items), what the cache knew."""
    items = sum([job.items for job, _ in plan.slices]) if many else len(plan.slices)
    return 1, plan.prefill_tokens, items, plan.shared


def many(kind: str) -> bool:
    """Whether the items of a call of this kind count, and not its jobs."""
    return kind in SERVICES and SERVICES[kind].many


def constants_of(section: Mapping[str, Any]) -> dict[str, float]:
    """The constants in a mapping that may hold more."""
    return {name: section[name] for name in (*SERVICE, CACHED) if section.get(name)}


@dataclass(frozen=True)
class IndexShape:
    """A vector index: `vectors` of `width` numbers in `lists` of near ones, of which a query reads `nprobe` (an
    inverted file, Sivic & Zisserman 2003); no lists where it reads all of them (a flat index)."""

    vectors: int
    width: int
    lists: int = 0
    nprobe: int = 0

    @property
    def read(self) -> float:
        """Vectors that a query is compared with, centres of lists included, if all lists are equally long."""
        return self.lists + self.nprobe * self.vectors / self.lists if self.lists else float(self.vectors)


def index_shape(service: Mapping[str, Any], pool: str) -> IndexShape | None:
    """The index that the keys of a search pool describe, None if they name no size. `index: ivf` has as many lists as
    the root of its vectors unless `lists` says otherwise, and reads 8 of them unless `nprobe` does."""
    vectors, width = service.get("vectors", 0), service.get("width", 0)
    if not vectors or not width:
        return None
    if service.get("index", "flat") == "flat":
        if service.get("lists") or service.get("nprobe"):
            raise BadInput(f"nprobe and lists are of an inverted file: set index: ivf for pool '{pool}', or drop them.")
        return IndexShape(vectors, width)
    lists = service.get("lists") or max(1, isqrt(vectors))
    nprobe = service.get("nprobe") or min(8, lists)
    if not nprobe <= lists <= vectors:
        raise BadInput(
            f"the index of pool '{pool}' reads nprobe={nprobe} of lists={lists} lists of vectors={vectors} vectors: "
            "there can be no more lists than vectors, and a query cannot read more lists than there are."
        )
    return IndexShape(vectors, width, lists, nprobe)

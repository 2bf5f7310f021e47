"""The cost of services that are not token servers: embedding, reranking, vector search, feature look-up."""

from __future__ import annotations

from airi_sim.core.errors import BadInput
from airi_sim.core.types import Affine, Plan

SERVICE = ("constant", "per_token", "per_item")
"""Names of the constants of a service, in seconds."""


class ServiceCost:
    """A plan takes constant + per_token * its tokens + per_item * its jobs, in seconds."""

    __slots__ = ("constant", "notes", "per_item", "per_token")

    def __init__(self, constant: float = 0.0, per_token: float = 0.0, per_item: float = 0.0) -> None:
        if min(constant, per_token, per_item) < 0 or constant + per_token + per_item <= 0:
            raise BadInput(
                "a service needs constant, per_token and per_item in seconds, none negative and not all zero; "
                f"got {constant}, {per_token}, {per_item}."
            )
        self.constant = constant
        self.per_token = per_token
        self.per_item = per_item
        self.notes: tuple[str, ...] = ()

    def affine(self, plan: Plan) -> Affine:
        """The same for every pass: nothing grows."""
        return Affine(self.constant + self.per_token * plan.prefill_tokens + self.per_item * len(plan.slices))

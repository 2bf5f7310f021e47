"""What a job will cost, as far as anybody can tell: the sizes by which queues order and charge."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import inf, lcm

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import Predictor
from airi_sim.core.types import Job
from airi_sim.policies.predictors import History, optional
from airi_sim.policies.queues.waiting import emitted


def checked(predictor: object | None, owner: str) -> Predictor:
    """A predictor given to a queue; History if none was."""
    given = optional(predictor, owner)
    return History() if given is None else given


def positive(what: str, value: float) -> float:
    """The value; BadInput unless it is finite and more than 0."""
    if not 0 < value < inf:
        raise BadInput(f"{what} is {value} and must be more than 0.")
    return value


def exact(what: str, value: float) -> Fraction:
    """As an exact fraction, so that 0.1 is a tenth."""
    if not 0 < value < inf or not (fraction := Fraction(value).limit_denominator(1_000_000)):
        raise BadInput(f"{what} is {value} and must be a positive number, one millionth at least.")
    return fraction


class Cost:
    """Weighted tokens a waiting job will cost: `w_in` for each to process, `w_out` for each predicted to come.

    `predictor` None stands for History.
    """

    def __init__(self, owner: str, w_in: float, w_out: float, predictor: object | None) -> None:
        if not (0 <= w_in < inf and 0 <= w_out < inf and w_in + w_out > 0):
            raise BadInput(f"w_in={w_in} and w_out={w_out} of {owner}: prices must be 0 or more, and one more than 0.")
        self.w_in, self.w_out = w_in, w_out
        self.predictor = checked(predictor, owner)

    def __call__(self, job: Job) -> float:
        return self.w_in * job.tokens + (self.w_out * self.left(job) if self.w_out else 0.0)

    def left(self, job: Job) -> float:
        """Output tokens a waiting job will still emit, as predicted: at least 1."""
        return max(1.0, self.predictor.predict(job) - emitted(job))


class Price(dict[str, int]):
    """Units a tenant pays for a token: `usual` if it is not named, so many `more` (or less) if it is."""

    def __init__(self, named: Mapping[str, int], usual: int) -> None:
        super().__init__(named)
        self.usual = usual
        self.more = {tenant: price - usual for tenant, price in named.items()}

    def __missing__(self, tenant: str) -> int:
        self[tenant] = self.usual
        return self.usual


class Prices:
    """What a tenant pays for a token of a prompt (`token_in`) and of the output (`token_out`), divided by its weight,
    as integers in the smallest unit all prices share: so k passes booked at once equal k passes booked one by one."""

    def __init__(self, owner: str, w_in: float, w_out: float, weights: Mapping[str, float] | None) -> None:
        shares = {tenant: exact(f"weight of tenant '{tenant}' of {owner}", w) for tenant, w in (weights or {}).items()}
        per_in, per_out = exact(f"w_in of {owner}", w_in), exact(f"w_out of {owner}", w_out)
        pairs = {tenant: (per_in / share, per_out / share) for tenant, share in shares.items()}
        self.unit = lcm(*(price.denominator for pair in [*pairs.values(), (per_in, per_out)] for price in pair))
        self.token_in = Price({tenant: int(i * self.unit) for tenant, (i, _) in pairs.items()}, int(per_in * self.unit))
        self.token_out = Price(
            {tenant: int(o * self.unit) for tenant, (_, o) in pairs.items()}, int(per_out * self.unit)
        )


class Shares:
    """Weights of tenants, 1 where unnamed."""

    def __init__(self, owner: str, weights: Mapping[str, float] | None) -> None:
        self.named = {
            tenant: positive(f"weight of tenant '{tenant}' of {owner}", weight)
            for tenant, weight in (weights or {}).items()
        }

    def __getitem__(self, tenant: str) -> float:
        return self.named.get(tenant, 1.0)

"""How tokens are chosen from the logits of a draft and of its target: the most likely ones, or drawn so that the
target's distribution is kept."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from airi_sim.hardware.speculation import Speculation
from airi_sim.workload.script import uniforms
from real_backend.runner import best

PROPOSE, ACCEPT, REPLACE = range(3)
"""What a random number of a place is for; so no two choices share one."""


class Asks(NamedTuple):
    """Whose tokens are chosen: ids of jobs, and the place in its sequence that each token will have (int64 arrays)."""

    jobs: np.ndarray
    places: np.ndarray

    def later(self, by: int) -> Asks:
        return Asks(self.jobs, self.places + by)


class Choice(Protocol):
    """How tokens are chosen from logits (float [rows, vocabulary])."""

    def begin(self) -> None:
        """A new pass."""
        ...

    def propose(self, logits: Tensor, asks: Asks) -> list[int]:
        """The next token of the draft, for each row; called once for each pass of the draft model."""
        ...

    def check(self, logits: Tensor, drafts: np.ndarray, asks: Asks) -> list[list[int]]:
        """What each sequence gets: the accepted ones of its `drafts` [sequences, k] and one token more. `logits` holds
        the k + 1 rows of each sequence one after another; `asks` is of the first token."""
        ...

    def first(self, logits: Tensor, asks: Asks) -> list[int]:
        """The token after a prompt, for each row."""
        ...


class Greedy:
    """The most likely token everywhere: the output is the same, token for token, as the target's alone."""

    def begin(self) -> None:
        """Nothing is kept."""

    def propose(self, logits: Tensor, asks: Asks) -> list[int]:
        return best(logits)

    def first(self, logits: Tensor, asks: Asks) -> list[int]:
        return best(logits)

    def check(self, logits: Tensor, drafts: np.ndarray, asks: Asks) -> list[list[int]]:
        said = np.array(best(logits)).reshape(len(drafts), -1)
        agreed = np.logical_and.accumulate(said[:, :-1] == drafts, axis=1).sum(1)
        return [row[: count + 1].tolist() for row, count in zip(said, agreed.tolist(), strict=True)]


class Rejection:
    """Sampling at a temperature: a drafted token x is accepted with probability min(1, p(x) / q(x)), the first that is
    not is replaced by one drawn from (p - q)+, so each token has the target's distribution p whatever the draft's q is
    (Leviathan et al. 2023, theorem 3.5).

    Random numbers are functions of the seed, the job and the place: how sequences share passes does not change them.
    """

    def __init__(self, temperature: float, seed: int) -> None:
        self.temperature = temperature
        self.seed = seed
        self.proposed: list[Tensor] = []

    def begin(self) -> None:
        self.proposed = []

    def propose(self, logits: Tensor, asks: Asks) -> list[int]:
        self.proposed.append(self.shares(logits))
        return drawn(self.proposed[-1], self.uniform(PROPOSE, asks, logits)).tolist()

    def first(self, logits: Tensor, asks: Asks) -> list[int]:
        return drawn(self.shares(logits), self.uniform(REPLACE, asks, logits)).tolist()

    def check(self, logits: Tensor, drafts: np.ndarray, asks: Asks) -> list[list[int]]:
        n, k = drafts.shape
        p = self.shares(logits).view(n, k + 1, -1)
        q = torch.stack(self.proposed, 1)
        x = torch.from_numpy(drafts).to(p.device)
        accept = torch.stack([self.uniform(ACCEPT, asks.later(i), logits) for i in range(k)], 1)
        agreed = accepted(p, q, x, accept)
        last = Asks(asks.jobs, asks.places + agreed.cpu().numpy())
        more = drawn(remainder(p, q, agreed), self.uniform(REPLACE, last, logits)).tolist()
        return [[*row[:a].tolist(), one] for row, a, one in zip(drafts, agreed.tolist(), more, strict=True)]

    def shares(self, logits: Tensor) -> Tensor:
        """Probabilities [rows, vocabulary] in double precision."""
        return (logits.double() / self.temperature).softmax(-1)

    def uniform(self, purpose: int, asks: Asks, like: Tensor) -> Tensor:
        """A number in [0, 1) for each row."""
        return torch.from_numpy(uniforms(self.seed, np.array([purpose]), asks.jobs, asks.places)).to(like.device)


def accepted(p: Tensor, q: Tensor, drafts: Tensor, uniform: Tensor) -> Tensor:
    """How many drafts [rows, k] are accepted, in order until the first that is not. p [rows, k + 1, vocabulary] and q
    [rows, k, vocabulary] are the distributions of target and draft, `uniform` [rows, k] random numbers."""
    wanted, offered = (one[:, : drafts.shape[1]].gather(2, drafts[..., None])[..., 0] for one in (p, q))
    return (uniform * offered < wanted).long().cumprod(1).sum(1)


def remainder(p: Tensor, q: Tensor, agreed: Tensor) -> Tensor:
    """What the token after the accepted ones is drawn from, not normalised: (p - q)+ where a draft was refused, p where
    none was."""
    rows, k = torch.arange(len(p), device=p.device), q.shape[1]
    target, draft = p[rows, agreed], q[rows, agreed.clamp(max=k - 1)]
    return torch.where((agreed < k)[:, None], (target - draft).clamp(min=0), target)


def drawn(shares: Tensor, uniform: Tensor) -> Tensor:
    """A token for each row of `shares` (any scale), where its sum first exceeds `uniform` times the whole."""
    sums = shares.cumsum(-1)
    return (sums <= uniform[:, None] * sums[:, -1:]).sum(-1).clamp(max=shares.shape[-1] - 1)


def choice_of(what: Speculation, seed: int) -> Choice:
    """What `method` names."""
    return Rejection(what.temperature, seed) if what.method == "rejection" else Greedy()

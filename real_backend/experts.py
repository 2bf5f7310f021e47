"""The MLP of a layer: dense, or experts between which a router chooses for every token (Shazeer 2017, Jiang 2024).

Tokens are sorted by expert, so that each expert that anybody chose is one product over its tokens; nothing loops over
tokens. Which experts a pass touches hangs on the tokens; how many, in expectation, on their number alone
(`airi_sim.models.layers.Mlp.touched`), which is what a cost model can know.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear, silu, softmax

from real_backend.linear import Linear


@dataclass(frozen=True, slots=True)
class Dense:
    """SwiGLU (Shazeer 2020); gate and up are one product. x [tokens, hidden] to [tokens, hidden]."""

    gate_up: Linear
    down: Linear

    def __call__(self, x: Tensor) -> Tensor:
        return self.down(gated(self.gate_up(x)))


def gated(gate_up: Tensor) -> Tensor:
    """[tokens, 2 * width] to [tokens, width]."""
    gate, up = gate_up.chunk(2, -1)
    return silu(gate).mul_(up)


@dataclass(frozen=True, slots=True)
class Router:
    """The `active` experts of each token by the softmax of weight [experts, hidden], and how much each counts.

    `renormalise` makes the weights of the chosen ones sum to one (Mixtral); else they are those among all experts.
    """

    weight: Tensor
    active: int
    renormalise: bool

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [tokens, hidden] to shares and experts (int64), both [tokens, active]; shares are computed in 32 bits."""
        scores = linear(x, self.weight)
        if self.renormalise:  # the softmax of the largest scores is that of all, renormalised
            largest, chosen = scores.topk(self.active)
            return softmax(largest, -1, dtype=torch.float32).to(x.dtype), chosen
        shares, chosen = softmax(scores, -1, dtype=torch.float32).topk(self.active)
        return shares.to(x.dtype), chosen


@dataclass(frozen=True, slots=True)
class Shared:
    """An expert that every token uses, by as much as its gate [1, hidden] says (Qwen2-MoE)."""

    expert: Dense
    gate: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return self.expert(x).mul_(linear(x, self.gate).sigmoid_())


@dataclass(frozen=True, slots=True)
class Experts:
    """Routed experts, perhaps beside a shared one. x [tokens, hidden] to [tokens, hidden]."""

    router: Router
    experts: tuple[Dense, ...]
    shared: Shared | None = None

    def __call__(self, x: Tensor) -> Tensor:
        shares, chosen = self.router(x)
        flat = chosen.view(-1)
        order = flat.argsort(stable=True)
        outputs = self._by_expert(x.index_select(0, order // self.router.active), flat)
        by_token = torch.empty_like(outputs).index_copy_(0, order, outputs).view(*chosen.shape, -1)
        mixed = torch.bmm(shares[:, None], by_token)[:, 0]
        return mixed if self.shared is None else mixed.add_(self.shared(x))

    def _by_expert(self, rows: Tensor, chosen: Tensor) -> Tensor:
        """Each row through its expert; rows [tokens * active, hidden] are in the order of the experts."""
        counts = chosen.bincount(minlength=len(self.experts)).tolist()
        touched = [expert for expert, count in zip(self.experts, counts, strict=True) if count]
        sizes = [count for count in counts if count]
        wide = [expert.gate_up(part) for expert, part in zip(touched, torch.split(rows, sizes), strict=True)]
        inner = torch.split(gated(torch.cat(wide)), sizes)
        return torch.cat([expert.down(part) for expert, part in zip(touched, inner, strict=True)])

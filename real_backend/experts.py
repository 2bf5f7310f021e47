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
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down(silu(gate).mul_(up))


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
        shares, chosen = softmax(linear(x, self.weight), -1, dtype=torch.float32).topk(self.active)
        if self.renormalise:
            shares = shares / shares.sum(-1, keepdim=True)
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
        order = chosen.view(-1).argsort(stable=True)
        outputs = self._sorted(x.index_select(0, order // self.router.active), chosen)
        by_token = torch.empty_like(outputs).index_copy_(0, order, outputs).view(*chosen.shape, -1)
        mixed = torch.bmm(shares[:, None], by_token)[:, 0]
        return mixed if self.shared is None else mixed.add_(self.shared(x))

    def _sorted(self, rows: Tensor, chosen: Tensor) -> Tensor:
        """Each row through its expert; rows [tokens * active, hidden] are in the order of the experts."""
        counts = chosen.view(-1).bincount(minlength=len(self.experts)).tolist()
        parts = zip(self.experts, torch.split(rows, counts), counts, strict=True)
        return torch.cat([expert(part) for expert, part, count in parts if count])

"""Matrix products of the decoder. On CPU in fp32 the weights are packed once for oneDNN."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

Linear = Callable[[Tensor], Tensor]
"""x [tokens, in] to [tokens, out]."""


def linear(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """x @ weight.T + bias for weight [out, in]; the faster of the two forms this device has."""
    packable = weight.device.type == "cpu" and weight.dtype == torch.float32
    return Packed(weight, bias) if packable and packing_works() else Plain(weight, bias)


class Plain:
    """torch.nn.functional.linear with its weight."""

    __slots__ = ("bias", "weight")

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight = weight
        self.bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)


class Packed:
    """The same product from a weight in oneDNN's blocked layout.

    MKL reads the plain layout anew in every call, which dominates passes of few tokens: at 16 tokens a packed product
    took 1.5 (2816x512) to 2.8 (8192x512) times less thread time.
    """

    __slots__ = ("bias", "product", "weight")

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
        self.bias = bias
        self.product = torch.ops.mkldnn._linear_pointwise.default

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = self.product(x, self.weight, self.bias, "none", [], "")
        return y


@cache
def packing_works() -> bool:
    """Whether this build of torch has the packed product (an operator of its compiler, not a public one)."""
    x, weight = torch.ones(2, 32), torch.eye(32)
    try:
        return bool(torch.equal(Packed(weight, None)(x), x))
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False

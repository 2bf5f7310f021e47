"""The layers of a model: each kind of attention and MLP, with the weights, the cache and the operations that follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Attention:
    """Attention of one layer: grouped-query, latent (kv_rank > 0), or linear (state > 0).

    heads, kv_heads, head_dim   query heads, heads of keys and values (fewer: GQA), width of a head
    v_dim                       width of a value head (0: head_dim)
    window                      tokens a query looks back on (0: all)
    chunked                     the window is the block of tokens a query lies in, not the latest ones (Llama 4)
    kv_rank, q_rank, rope_dim, nope_dim   multi-head latent attention: ranks of the compressed KV and query (q_rank 0:
                                not compressed), key width with and without positions
    state                       linear attention: numbers of recurrent state per sequence, instead of a KV cache
    borrows                     reads the cache of an earlier layer and has no keys and values of its own
    keys_are_values             one projection for both (both are cached all the same)
    gate                        the output is gated by a second query projection
    qkv_bias, out_bias, qk_norm, sinks   what else has weights; qk_norm is "", "head" (one weight a head dimension) or
                                "whole" (over all heads)
    extra                       further weights (convolutions, decays)
    """

    heads: int
    kv_heads: int
    head_dim: int
    v_dim: int = 0
    window: int = 0
    chunked: bool = False
    kv_rank: int = 0
    q_rank: int = 0
    rope_dim: int = 0
    nope_dim: int = 0
    state: int = 0
    borrows: bool = False
    keys_are_values: bool = False
    gate: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: str = ""
    sinks: bool = False
    extra: int = 0

    @property
    def kind(self) -> str:
        """linear, latent, window or full."""
        if self.state:
            return "linear"
        if self.kv_rank:
            return "latent"
        return "window" if self.window else "full"

    @property
    def value_dim(self) -> int:
        """Width of a value head."""
        return self.v_dim or self.head_dim

    @property
    def query_width(self) -> int:
        """Width of all queries."""
        return self.heads * (self.nope_dim + self.rope_dim if self.kv_rank else self.head_dim)

    @property
    def kv_width(self) -> int:
        """Numbers of keys and values of one token as attention reads them (latent ones are compressed)."""
        if self.kv_rank:
            return self.kv_rank + self.rope_dim
        return 0 if self.state else self.kv_heads * (self.head_dim + self.value_dim)

    @property
    def cached(self) -> int:
        """Numbers that one token adds to the KV cache."""
        return 0 if self.borrows else self.kv_width

    @property
    def pair_flops(self) -> int:
        """Operations per (query token, context token) pair: scores and values of all heads."""
        if self.state:
            return 0
        if self.kv_rank:
            return 2 * self.heads * (2 * self.kv_rank + self.rope_dim)
        return 2 * self.heads * (self.head_dim + self.value_dim)

    @property
    def state_flops(self) -> int:
        """Operations of one token on the recurrent state: decay, read, write and query of each number."""
        return 8 * self.state

    def seen(self, context: int) -> int:
        """Of `context` tokens those that the last one attends to."""
        if not self.window:
            return context
        return (context - 1) % self.window + 1 if self.chunked and context else min(context, self.window)

    def weights(self, hidden: int) -> int:
        """Projections with their biases, norms of queries and keys, sinks."""
        return (self._latent(hidden) if self.kv_rank else self._grouped(hidden)) + self.extra

    def _grouped(self, hidden: int) -> int:
        wide, out = self.heads * self.head_dim, self.heads * self.value_dim
        keys = 0 if self.borrows else self.kv_heads * self.head_dim
        values = 0 if self.borrows or self.keys_are_values else self.kv_heads * self.value_dim
        queries = wide * (2 if self.gate else 1)
        projections = hidden * (queries + keys + values + out)
        biases = self.qkv_bias * (queries + keys + values) + self.out_bias * hidden
        norms = {"": 0, "head": self.head_dim * (1 if self.borrows else 2), "whole": wide + keys}[self.qk_norm]
        return projections + biases + norms + self.sinks * self.heads

    def _latent(self, hidden: int) -> int:
        query = self.query_width
        into_query = self.q_rank * (hidden + query + 1) if self.q_rank else hidden * query
        down = hidden * (self.kv_rank + self.rope_dim) + self.kv_rank
        up = self.kv_rank * self.heads * (self.nope_dim + self.value_dim)
        biases = self.qkv_bias * (self.q_rank + self.kv_rank + self.rope_dim) + self.out_bias * hidden
        return into_query + down + up + self.heads * self.value_dim * hidden + biases


@dataclass(frozen=True)
class Mlp:
    """The MLP of one layer: dense, or routed experts, perhaps beside shared ones.

    ffn              width of a dense MLP (0: there is none)
    experts, active, expert_ffn   routed experts, how many a token uses, the width of one
    shared_ffn       summed width of what every token uses beside the routed experts
    gated            two projections in and one out (three matrices) instead of one and one
    bias, router_bias, shared_gate   what else has weights; `router_extra` further ones of the router
    renormalise      the shares of the experts that a token uses sum to one
    activation       what stands between its projections, by the name that a config.json gives it
    """

    ffn: int = 0
    experts: int = 0
    active: int = 0
    expert_ffn: int = 0
    shared_ffn: int = 0
    gated: bool = True
    bias: bool = False
    router_bias: bool = False
    router_extra: int = 0
    shared_gate: bool = False
    renormalise: bool = True
    activation: str = "silu"

    @property
    def matrices(self) -> int:
        """Weight matrices of one MLP."""
        return 3 if self.gated else 2

    def weights(self, hidden: int) -> dict[str, int]:
        """Weights by module: mlp, or router, experts and shared."""
        if not self.experts:
            return {"mlp": self._block(hidden, self.ffn)}
        router = self.experts * (hidden + self.router_bias) + self.router_extra + self.shared_gate * hidden
        shared = self._block(hidden, self.shared_ffn) if self.shared_ffn else 0
        return {"router": router, "experts": self.experts * self.expert(hidden), "shared": shared}

    def expert(self, hidden: int) -> int:
        """Weights of one routed expert."""
        return self._block(hidden, self.expert_ffn)

    def touched(self, tokens: int) -> float:
        """Routed experts that at least one of `tokens` tokens uses, in expectation if each is as likely as the next."""
        return self.experts * (1.0 - (1.0 - self.active / self.experts) ** tokens) if self.experts else 0.0

    def _block(self, hidden: int, width: int) -> int:
        return self.matrices * hidden * width + self.bias * ((self.matrices - 1) * width + hidden)


@dataclass(frozen=True)
class LayerKind:
    """`count` equal layers; `norm` numbers of norm weights in each, attention's own not counted."""

    count: int
    attention: Attention
    mlp: Mlp
    norm: int = 0

    def weights(self, hidden: int) -> Mapping[str, int]:
        """Weights by module of all `count` layers."""
        each = {"attention": self.attention.weights(hidden), **self.mlp.weights(hidden), "norm": self.norm}
        return {module: self.count * numbers for module, numbers in each.items()}

    def idle(self, hidden: int) -> int:
        """Weights of the experts that a token does not use, in all `count` layers."""
        return self.count * (self.mlp.experts - self.mlp.active) * self.mlp.expert(hidden)

"""Tensor parallelism: each rank holds some of the heads, of the width of the MLP and of the vocabulary.

The layout of Megatron-LM (Shoeybi et al. 2019, arXiv:1909.08053): projections into heads and MLP are cut by rows, those
out of them by columns, so a layer needs one sum over the ranks after attention and one after the MLP. A rank stores the
keys and values of its own heads only. The embedding table is whole everywhere, the output head is cut by rows and its
logits are gathered, so all ranks see the same ones.

A rank is an ordinary `Model` of a narrower architecture whose `out`, `mlp` and `head` talk to the others; the code of
the forward knows nothing of it. Experts are cut like a dense MLP, each of them, so every rank routes every token alike.
Ranks talk over gloo on the CPU and NCCL on CUDA.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from time import process_time
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from airi_sim.core.errors import BadInput
from airi_sim.hardware.deployment import Deployment
from airi_sim.models.layers import LayerKind
from airi_sim.models.spec import ModelSpec
from real_backend import clock as clocks
from real_backend import weights as stored
from real_backend.channel import Task
from real_backend.clock import Clock, ThreadClock
from real_backend.library import Library
from real_backend.linear import Linear
from real_backend.model import Layer, Model, build
from real_backend.model import check as check_model
from real_backend.weights import EMBEDDING, HEAD

MEET_S = 120.0
ROWS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
COLUMNS = ("o_proj", "down_proj")


class PeerLost(Exception):
    """A collective failed: another rank is gone."""


class ProcessClock(ThreadClock):
    """CPU time of all threads of this process: gloo sends and sums in threads of its own, which is work of the rank,
    while waiting for another rank is not."""

    def mark(self) -> float:
        return process_time()


def clock(kind: str, device: torch.device) -> Clock:
    """The clock of a rank."""
    return ProcessClock() if kind == "work" and device.type == "cpu" else clocks.clock(kind, device)


def check(spec: ModelSpec, ranks: int, pool: str) -> None:
    """BadInput unless heads, heads of keys and values, and the width of the MLP can be dealt to so many ranks."""
    for what, number in (
        ("query heads", spec.heads),
        ("heads of keys and values", spec.kv_heads),
        ("columns of its MLP", spec.ffn),
        ("columns of its experts", spec.expert_ffn),
        ("columns of its shared expert", spec.shared_ffn),
    ):
        if number % ranks:
            raise BadInput(
                f"pool '{pool}' has tp={ranks}, but the {number} {what} of '{spec.name}' cannot be dealt evenly to "
                f"{ranks} ranks: choose a tp that divides {number}."
            )


def meet(task: Task) -> None:
    """Called once in each rank: wait until all are there."""
    dist.init_process_group(
        "nccl" if task.device == "cuda" else "gloo",
        init_method=f"file://{task.meeting}",
        rank=task.rank,
        world_size=task.ranks,
        timeout=timedelta(seconds=MEET_S),
    )


class Share(Library):
    """The library of one rank, whose models are its share of them. Every rank draws or maps the whole weights and keeps
    its part."""

    def model(self, deployment: Deployment) -> Model:
        """This rank's share of the model of a pool, loaded once."""
        spec = self.spec(deployment)
        if spec not in self._models:
            check_model(spec)
            path, device = self.weights.get(spec.name), str(self.device)
            tensors = stored.read(spec, path) if path else stored.draw(spec, self.seed, device, self.dtype)
            rank, ranks = dist.get_rank(), dist.get_world_size()
            part = build(narrowed(spec, ranks), share(tensors, spec, rank, ranks), device, self.dtype)
            self._models[spec] = joined(part, spec.vocab)
        return self._models[spec]


def narrowed(spec: ModelSpec, ranks: int) -> ModelSpec:
    """The architecture of one rank; a tied head becomes one of its own, for it is cut and the table is not."""
    return replace(spec, kinds=tuple(_narrow(kind, ranks) for kind in spec.kinds), tied=False)


def _narrow(kind: LayerKind, ranks: int) -> LayerKind:
    attention, mlp = kind.attention, kind.mlp
    return replace(
        kind,
        attention=replace(attention, heads=attention.heads // ranks, kv_heads=attention.kv_heads // ranks),
        mlp=replace(mlp, ffn=mlp.ffn // ranks, expert_ffn=mlp.expert_ffn // ranks, shared_ffn=mlp.shared_ffn // ranks),
    )


def share(tensors: Mapping[str, Tensor], spec: ModelSpec, rank: int, ranks: int) -> dict[str, Tensor]:
    """The part of each tensor that a rank holds."""
    mine = {name: _part(name, tensor, rank, ranks) for name, tensor in tensors.items()}
    head = tensors[EMBEDDING] if spec.tied else tensors[HEAD]
    each = -(-spec.vocab // ranks)
    rows = head[rank * each : (rank + 1) * each]
    mine[HEAD] = torch.cat((rows, rows.new_zeros(each - len(rows), spec.hidden)))
    return mine


def _part(name: str, tensor: Tensor, rank: int, ranks: int) -> Tensor:
    projection = name.split(".")[-2]
    if projection in ROWS:
        return tensor.chunk(ranks)[rank]
    if projection not in COLUMNS:
        return tensor
    if name.endswith("bias"):  # it is added once
        return tensor if rank == 0 else torch.zeros_like(tensor)
    return tensor.chunk(ranks, 1)[rank].contiguous()


def joined(model: Model, vocabulary: int) -> Model:
    """A rank's model whose products are summed and gathered over the ranks."""
    layers = tuple(_joined(layer) for layer in model.layers)
    return replace(model, layers=layers, head=Gathered(model.head, vocabulary))


def _joined(layer: Layer) -> Layer:
    mlp: Any = Summed(layer.mlp)
    return replace(layer, out=Summed(layer.out), mlp=mlp)


class Summed:
    """A product over part of the columns, or an MLP that ends with one: the sum over the ranks is the whole."""

    __slots__ = ("part",)

    def __init__(self, part: Linear) -> None:
        self.part = part

    def __call__(self, x: Tensor) -> Tensor:
        y = self.part(x)
        _together(lambda: dist.all_reduce(y))
        return y


class Gathered:
    """A product by part of the rows: the results of all ranks side by side, cut to the vocabulary."""

    __slots__ = ("part", "vocabulary")

    def __init__(self, part: Linear, vocabulary: int) -> None:
        self.part = part
        self.vocabulary = vocabulary

    def __call__(self, x: Tensor) -> Tensor:
        y = self.part(x).contiguous()
        parts = [torch.empty_like(y) for _ in range(dist.get_world_size())]
        _together(lambda: dist.all_gather(parts, y))
        return torch.cat(parts, -1)[..., : self.vocabulary]


def _together(collective: Callable[[], object]) -> None:
    try:
        collective()
    except RuntimeError as error:
        raise PeerLost(str(error).splitlines()[0]) from error

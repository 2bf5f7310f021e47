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

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from time import process_time
from typing import Any, Protocol

import torch
from torch import Tensor
from torch import distributed as dist

from airi_sim.core.errors import BadInput
from airi_sim.hardware.deployment import Deployment
from airi_sim.models.layers import LayerKind
from airi_sim.models.spec import ModelSpec
from real_backend import clock as clocks
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


class Group(Protocol):
    """The ranks of one model, seen from one of them."""

    rank: int
    ranks: int

    def add(self, values: Tensor) -> None:
        """Replace `values` by their sum over all ranks, the same bits on each."""
        ...

    def gather(self, values: Tensor) -> list[Tensor]:
        """The `values` of all ranks, in order."""
        ...


class Processes:
    """Ranks that are processes; made once in each, and waits until all are there. PeerLost if one is gone."""

    def __init__(self, task: Task) -> None:
        self.rank, self.ranks = task.rank, task.ranks
        dist.init_process_group(
            "nccl" if task.device == "cuda" else "gloo",
            init_method=f"file://{task.meeting}",
            rank=task.rank,
            world_size=task.ranks,
            timeout=timedelta(seconds=MEET_S),
        )

    def add(self, values: Tensor) -> None:
        with _reaching():
            dist.all_reduce(values)

    def gather(self, values: Tensor) -> list[Tensor]:
        parts = [torch.empty_like(values) for _ in range(self.ranks)]
        with _reaching():
            dist.all_gather(parts, values)
        return parts


@contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise PeerLost(str(error).splitlines()[0]) from error


class Share(Library):
    """The library of one rank, whose models are its share of them. Every rank draws or maps the whole weights and keeps
    its part."""

    def __init__(self, group: Group, *options: Any) -> None:
        super().__init__(*options)
        self.group = group

    def model(self, deployment: Deployment) -> Model:
        """This rank's share of the model of a pool, loaded once."""
        spec = self.spec(deployment)
        if spec not in self._models:
            check_model(spec)
            self._models[spec] = share(spec, self.tensors(spec), self.group, str(self.device), self.dtype)
        return self._models[spec]


def share(spec: ModelSpec, tensors: Mapping[str, Tensor], group: Group, device: str, dtype: torch.dtype) -> Model:
    """One rank's share of a model, which sums and gathers over the ranks."""
    part = build(narrowed(spec, group.ranks), parts(spec, tensors, group), device, dtype)
    layers = tuple(_joined(layer, group) for layer in part.layers)
    return replace(part, layers=layers, head=Gathered(part.head, group, spec.vocab))


def _joined(layer: Layer, group: Group) -> Layer:
    mlp: Any = Summed(layer.mlp, group)
    return replace(layer, out=Summed(layer.out, group), mlp=mlp)


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


def parts(spec: ModelSpec, tensors: Mapping[str, Tensor], group: Group) -> dict[str, Tensor]:
    """What a rank holds of each tensor; the head is padded with rows of zeros to equal parts."""
    mine = {name: _part(name, tensor, group) for name, tensor in tensors.items()}
    each = -(-spec.vocab // group.ranks)
    rows = tensors[EMBEDDING if spec.tied else HEAD][group.rank * each :][:each]
    mine[HEAD] = torch.cat((rows, rows.new_zeros(each - len(rows), spec.hidden)))
    return mine


def _part(name: str, tensor: Tensor, group: Group) -> Tensor:
    projection = name.split(".")[-2]
    if projection in ROWS:
        return tensor.chunk(group.ranks)[group.rank]
    if projection not in COLUMNS:
        return tensor
    if name.endswith("bias"):  # it is added once
        return torch.zeros_like(tensor) if group.rank else tensor
    return tensor.chunk(group.ranks, 1)[group.rank].contiguous()


class Summed:
    """A product over part of the columns, or an MLP that ends with one: the sum over the ranks is the whole."""

    __slots__ = ("group", "part")

    def __init__(self, part: Linear, group: Group) -> None:
        self.part = part
        self.group = group

    def __call__(self, x: Tensor) -> Tensor:
        y = self.part(x)
        self.group.add(y)
        return y


class Gathered:
    """A product by part of the rows: the results of all ranks side by side, cut to the vocabulary."""

    __slots__ = ("group", "part", "vocabulary")

    def __init__(self, part: Linear, group: Group, vocabulary: int) -> None:
        self.part = part
        self.group = group
        self.vocabulary = vocabulary

    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat(self.group.gather(self.part(x)), -1)[..., : self.vocabulary]

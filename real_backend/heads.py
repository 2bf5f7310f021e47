"""Heads on the states of an encoder: one number for a reranker, probabilities of labels for a guard.

A head reads one state a sequence: the mean over tokens that saw the whole sequence (cross encoders), or that of the
last token of a causal model (what `*ForSequenceClassification` of transformers and Qwen3-Reranker do).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import linear

from airi_sim.core.errors import BadInput
from airi_sim.models.spec import ModelSpec
from real_backend.model import Model, pooled
from real_backend.weights import fill, pick

WEIGHT = "score.weight"


@dataclass(frozen=True, slots=True)
class Head:
    """`weight` [labels, hidden] in 32 bits, and how a sequence becomes one state: see `model.pooled`."""

    weight: Tensor
    causal: bool = False
    last: bool = False


def draw_head(
    spec: ModelSpec, labels: int = 1, seed: int = 0, device: str = "cpu", *, causal: bool = False, last: bool = False
) -> Head:
    """A random head of so many labels on the model `spec`, the same for the same seed."""
    tensors = fill({WEIGHT: (labels, spec.hidden)}, seed, device, torch.float32)
    return Head(tensors[WEIGHT], causal, last)


def read_head(spec: ModelSpec, path: str | Path, labels: int = 1, device: str = "cpu") -> Head:
    """The head of a model for sequence classification, which reads the last token; BadInput if it has none."""
    weight = pick({WEIGHT: (labels, spec.hidden)}, path, spec.name)[WEIGHT]
    return Head(weight.to(device, torch.float32), causal=True, last=True)


def outputs(model: Model, head: Head, tokens: Tensor, lengths: list[int]) -> Tensor:
    """[sequences, labels] before any softmax, in 32 bits; `tokens` (int64) holds sequences of these lengths."""
    return linear(pooled(model, tokens, lengths, head.causal, head.last), head.weight)


def score(model: Model, head: Head, tokens: Tensor, lengths: list[int]) -> Tensor:
    """How relevant each document is to its query, any real number [sequences]: a sequence is a query and a document.

    BadInput if the head has several labels.
    """
    if len(head.weight) != 1:
        raise BadInput(f"a reranker needs a head of one label, this one has {len(head.weight)}: take labels=1.")
    return outputs(model, head, tokens, lengths)[:, 0]


def classify(model: Model, head: Head, tokens: Tensor, lengths: list[int]) -> Tensor:
    """Probabilities of the labels [sequences, labels], each row summing to one."""
    return outputs(model, head, tokens, lengths).softmax(-1)

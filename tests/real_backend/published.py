"""Models of transformers, the implementation that everybody uses; tests are skipped where it is absent."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import pytest
import torch


def published(kind: str, config: Mapping[str, Any]) -> torch.nn.Module:
    """An auto class of transformers (`kind`) with random weights, norms included."""
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers")
        torch.manual_seed(3)
        model = getattr(transformers, kind).from_config(transformers.AutoConfig.for_model(**config))
        for name, parameter in model.named_parameters():
            parameter.data.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.05)
        return model.eval()

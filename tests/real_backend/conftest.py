"""Fixtures of the backend's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from real_backend.backend import TorchBackend

torch.set_num_threads(1)  # as in a run; threads of several test processes would wait for each other


@pytest.fixture
def make_backend() -> Iterator[Callable[..., TorchBackend]]:
    """A backend on the CPU; closed after the test."""
    made: list[TorchBackend] = []

    def make(**options: Any) -> TorchBackend:
        made.append(TorchBackend(**{"device": "cpu", "cocalibrate": False} | options))
        return made[-1]

    yield make
    for backend in made:
        backend.close()

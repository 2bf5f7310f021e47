"""Fixtures of the backend's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from real_backend.backend import TorchBackend


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

"""airi_sim: one policy, two worlds. A simulator and benchmarking workbench for AI runtime infrastructure."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["check_policy", "load", "run"]

_LAZY = {"run": "airi_sim.workbench.api", "load": "airi_sim.workbench.api", "check_policy": "airi_sim.workbench.check"}


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    """`run`, `load` and `check_policy` on first use, so that `import airi_sim` stays light."""
    if name not in _LAZY:
        raise AttributeError(f"module 'airi_sim' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)

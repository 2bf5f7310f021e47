"""When a run crashes: whose code it was. One place, so that no call of a policy needs a guard of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from types import FrameType
from typing import Any

from airi_sim.core.errors import BadInput, PolicyError
from airi_sim.workbench.objects import told

OURS = {"airi_sim", "real_backend", "simpy", "numpy", "torch"} | sys.stdlib_module_names


@contextmanager
def blaming(config: Mapping[str, Any]) -> Iterator[None]:
    """Errors raised inside become PolicyError when code from outside the package was at work; ours stay as they are.

    If a run with policies from outside fails in our code, one of them answered what nobody can use: they are named.
    """
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        frame, line = culprit(error)
        if frame is not None:
            raise PolicyError(
                f"{_who(frame)} failed: {told(error)} ({_where(frame, line)}; --debug shows more)."
            ) from error
        suspects = guests(config)
        if not suspects:
            raise
        frame, line = list(walk_tb(error.__traceback__))[-1]
        raise PolicyError(
            f"an answer of {' or '.join(suspects)} cannot be used: {told(error)} ({_where(frame, line)}; "
            "airi_sim.check_policy says which law it breaks, --debug shows more)."
        ) from error


def guests(config: Mapping[str, Any]) -> list[str]:
    """The policies of a config that are not ours, as module.Class."""
    sets = [config["policy"], *[pool.get("policy") or {} for pool in (config["pools"] or {}).values()]]
    targets = [node.get("_target_") for chosen in sets for node in chosen.values() if isinstance(node, Mapping)]
    return [str(target) for target in dict.fromkeys(targets) if not str(target).startswith("airi_sim.")]


def culprit(error: BaseException) -> tuple[FrameType | None, int]:
    """The innermost frame of a user's class, else of a user's function, and its line; (None, 0) if it was ours."""
    foreign = [(frame, line) for frame, line in walk_tb(error.__traceback__) if _foreign(frame)]
    methods = [(frame, line) for frame, line in foreign if _owner(frame) is not None]
    return next(reversed(methods or foreign), (None, 0))


def _foreign(frame: FrameType) -> bool:
    """Code from elsewhere, or ours running on an object whose class is from elsewhere (and forgot something)."""
    modules = [str(frame.f_globals.get("__name__", "")), type(_owner(frame)).__module__]
    return any(module.partition(".")[0] not in OURS for module in modules)


def _owner(frame: FrameType) -> Any:
    """The object whose method runs in the frame."""
    return frame.f_locals.get("self")


def _who(frame: FrameType) -> str:
    owner = _owner(frame)
    if owner is None:
        return f"'{frame.f_code.co_qualname}' of {frame.f_globals.get('__name__')}"
    return f"policy {type(owner).__name__}: its method '{frame.f_code.co_name}'"


def _where(frame: FrameType, line: int) -> str:
    return f"{Path(frame.f_code.co_filename).name}, line {line}"

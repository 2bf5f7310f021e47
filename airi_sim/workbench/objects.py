"""Objects from config nodes: `_target_` names a class or a function, the other keys are its arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from inspect import isclass
from typing import Any

from airi_sim.core.errors import BadInput, unknown
from airi_sim.workbench.annotations import check_arguments, not_possible


def instantiate(node: Any, key: str) -> Any:
    """The object a plain config node describes; `key` is where it stands. BadInput if it cannot be made."""
    if not isinstance(node, Mapping) or not node.get("_target_"):
        raise not_possible(key, node, f"a choice of its group ({key}=NAME) or a mapping with a _target_")
    target = locate(node["_target_"], key)
    arguments = arguments_of(node, key)
    check_arguments(target, arguments, key, key)
    return made(target, arguments, key)


def arguments_of(node: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The arguments in a node; those that are nodes with a `_target_` themselves become objects."""
    return {
        name: instantiate(value, f"{key}.{name}") if isinstance(value, Mapping) and "_target_" in value else value
        for name, value in node.items()
        if not name.startswith("_")
    }


def made(target: Callable[..., Any], arguments: Mapping[str, Any], what: str) -> Any:
    """What `target` makes of its arguments; whatever goes wrong there is an error of the input."""
    try:
        return target(**arguments)
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"{what}: {target.__name__} cannot be made with these arguments ({told(error)}).") from error


def locate(target: Any, what: str) -> Any:
    """What `module.Name` names. BadInput if it cannot be imported (for whatever reason) or is not there."""
    module, _, name = str(target).rpartition(".")
    if not module:
        raise BadInput(f"{what}: '{target}' names no class; write _target_=module.Class.")
    try:
        holder = import_module(module)
    except Exception as error:
        hint = "; the working directory is importable" if isinstance(error, ModuleNotFoundError) else ""
        raise BadInput(f"{what}: '{target}' cannot be imported ({told(error)}){hint}.") from error
    if not hasattr(holder, name):
        public = [n for n, value in vars(holder).items() if isclass(value) and _is_of(value, module)]
        raise unknown(f"class in {module} for {what}", name, public or ["(none)"])
    found = getattr(holder, name)
    if not callable(found):
        raise BadInput(f"{what}: '{target}' is neither a class nor a function.")
    return found


def _is_of(value: type, module: str) -> bool:
    """Whether a class was made in a module, or in a part of that package."""
    return f"{value.__module__}.".startswith(f"{module}.")


def told(error: BaseException) -> str:
    """Type and message of an error, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": .")

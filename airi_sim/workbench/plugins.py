"""Policies from config nodes: the class is found, its arguments and methods are checked, errors name what exists."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from omegaconf import OmegaConf

from airi_sim.core.errors import BadInput, PolicyError, unknown
from airi_sim.workbench.paths import conf_dir, options

METHODS = {
    "router": ("route",),
    "queue": ("push", "requeue", "peek", "pop", "__len__"),
    "batcher": ("form",),
    "evictor": ("victim",),
    "admission": ("admit",),
    "fault": ("lost",),
    "model_router": ("choose",),
}
"""What a policy of each kind must be able to do; the signatures are in core.protocols."""


def group_node(group: str, name: str, seed: int = 0) -> dict[str, Any]:
    """The yaml of one choice of a group as plain values."""
    if name not in options(group):
        raise unknown(group.split("/")[-1], name, options(group))
    node = OmegaConf.load(conf_dir() / group / f"{name}.yaml")
    return OmegaConf.to_container(OmegaConf.merge({"seed": seed}, {"node": node}).node, resolve=True)  # type: ignore


def find_class(target: str, what: str) -> type:
    """The class that `module.Class` names."""
    module, _, name = target.rpartition(".")
    if not module:
        raise BadInput(f"{what}: '{target}' names no class; write _target_=module.Class.")
    try:
        found = getattr(import_module(module), name)
    except ImportError as error:
        raise BadInput(f"{what}: '{target}' cannot be imported ({error}).") from None
    except AttributeError:
        public = [n for n, v in vars(import_module(module)).items() if inspect.isclass(v) and v.__module__ == module]
        raise unknown(f"{what} class", name, public or ["(no class in that module)"]) from None
    if not inspect.isclass(found):
        raise BadInput(f"{what}: '{target}' is no class.")
    return found


def maker(kind: str, node: Mapping[str, Any]) -> Callable[[], Any]:
    """A factory of one policy, checked once: arguments against the constructor, methods against the protocol."""
    arguments = {key: value for key, value in node.items() if not key.startswith("_")}
    cls = find_class(str(node.get("_target_", "")), f"policy.{kind}")
    _check_arguments(kind, cls, arguments)

    def make() -> Any:
        return cls(**arguments)

    check_methods(kind, make())
    return make


def _check_arguments(kind: str, cls: type, arguments: Mapping[str, Any]) -> None:
    parameters = inspect.signature(cls).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    names = [p.name for p in parameters]
    for name in arguments:
        if name not in names:
            raise unknown(f"argument of policy {cls.__name__} (policy.{kind})", name, names or ["(it takes none)"])
    missing = [p.name for p in parameters if p.default is p.empty and p.name not in arguments]
    if missing:
        raise BadInput(f"policy {cls.__name__} needs policy.{kind}.{missing[0]}=...: it has no default.")


def check_methods(kind: str, policy: Any) -> None:
    """PolicyError for the first method the protocol asks for and the policy lacks."""
    name = type(policy).__name__
    for method in METHODS[kind]:
        if not callable(getattr(policy, method, None)):
            raise PolicyError(f"policy {name} cannot be used as {kind}: it has no method '{method}'.")
    if kind == "queue" and getattr(policy, "account", None) and not callable(getattr(policy, "serve", None)):
        raise PolicyError(f"policy {name} sets account='{policy.account}' but has no method 'serve' to book it.")


def policy_node(kind: str, chosen: Any, default: Mapping[str, Any], seed: int) -> Mapping[str, Any]:
    """The node of a policy in a pool: a name of the group, a node with a `_target_`, or the default."""
    if chosen is None:
        return default
    if isinstance(chosen, str):
        return group_node(f"policy/{kind}", chosen, seed)
    if not isinstance(chosen, Mapping) or "_target_" not in chosen:
        raise BadInput(f"policy.{kind}={chosen!r}: give a name of conf/policy/{kind} or a mapping with a _target_.")
    return chosen

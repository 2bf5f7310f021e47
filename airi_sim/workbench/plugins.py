"""Policies from config nodes: the class is found, its arguments and methods are checked, errors name what exists."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import OmegaConf

from airi_sim.core.errors import BadInput, PolicyError, unknown
from airi_sim.workbench.annotations import check_arguments, shown
from airi_sim.workbench.objects import arguments_of, locate, made
from airi_sim.workbench.paths import conf_dir, options

METHODS = {
    "router": ("route",),
    "queue": ("push", "requeue", "peek", "pop", "__len__"),
    "batcher": ("form",),
    "evictor": ("victim",),
    "cache": ("victims",),
    "admission": ("admit",),
    "fault": ("lost",),
    "model_router": ("choose",),
    "placement": ("place",),
}
"""What a policy of each kind must be able to do; the signatures are in core.protocols."""

TAKES: dict[str, dict[str, tuple[str, ...]]] = {
    "router": {"route": ("job", "view", "now"), "over": ("job", "tokens_out", "now")},
    "queue": {
        "push": ("job", "now"), "requeue": ("job", "now"), "peek": ("now",), "pop": ("now",), "remove": ("job", "now"),
        "stable": ("now", "decoding"), "serve": ("decoding", "passes"),
        "over": ("job", "tokens_out", "now"), "contest": ("draft", "now"), "overtakes": ("draft", "job", "now"),
    },
    "batcher": {"form": ("draft", "queue", "now"), "stable": ("draft", "queue", "now")},
    "evictor": {"victim": ("running", "now"), "swaps": ("job", "tokens", "now")},
    "cache": {"victims": ("idle", "n"), "use": ("prompt", "places"), "free": ("units",)},
    "admission": {"admit": ("job", "view", "now"), "over": ("job", "tokens_out", "now")},
    "fault": {"lost": ("job", "attempt", "now")},
    "model_router": {"choose": ("job", "pools", "now"), "over": ("job", "tokens_out", "now")},
    "placement": {
        "place": ("fleet", "wanted", "now"), "first": ("fleet",), "refuse": ("model", "fleet", "now"),
        "wake": ("fleet", "now"),
    },
}  # fmt: skip
"""What these methods, and optional ones, are called with; always by position."""


def group_node(group: str, name: str, seed: int = 0, data_dir: str | None = None) -> dict[str, Any]:
    """The yaml of one choice of a group as plain values; `seed` and `data_dir` are what it may refer to."""
    if name not in options(group):
        raise unknown(group.split("/")[-1], name, options(group))
    node = OmegaConf.load(conf_dir() / group / f"{name}.yaml")
    return OmegaConf.to_container(
        OmegaConf.merge({"seed": seed, "data": {"dir": data_dir}}, {"node": node}).node, resolve=True
    )  # type: ignore


def find_class(target: str, what: str) -> type:
    """The class that `module.Class` names."""
    found = locate(target, what)
    if not inspect.isclass(found):
        raise BadInput(f"{what}: '{target}' is no class.")
    return found


def maker(kind: str, node: Any) -> Callable[[], Any]:
    """A factory of one policy, checked once: arguments against the constructor, methods against the protocol."""
    key = f"policy.{kind}"
    if not isinstance(node, Mapping) or not node.get("_target_"):
        choose = f"choose one with policy/{kind}=NAME (there are {', '.join(options(f'policy/{kind}'))})"
        raise BadInput(f"{key}={shown(node)} is no policy: {choose}, or your own with {key}._target_=module.Class.")
    cls = find_class(node["_target_"], key)
    what = f"policy {cls.__name__}"
    check_arguments(cls, arguments_of(node, key), key, what)

    def make() -> Any:
        return made(cls, arguments_of(node, key), key)

    check_methods(kind, make())
    return make


def check_methods(kind: str, policy: Any) -> None:
    """PolicyError for the first method the protocol asks for and the policy lacks, or has with other arguments."""
    name = type(policy).__name__
    for method in METHODS[kind]:
        if not callable(getattr(policy, method, None)):
            raise PolicyError(f"policy {name} cannot be used as {kind}: it has no method '{method}'.")
    for method, names in TAKES[kind].items():
        found = getattr(policy, method, None)
        if found is not None and not _takes(found, names):
            raise PolicyError(f"policy {name} cannot be used as {kind}: '{method}' must take ({', '.join(names)}).")
    if kind == "queue" and getattr(policy, "account", None) and not callable(getattr(policy, "serve", None)):
        raise PolicyError(f"policy {name} sets account='{policy.account}' but has no method 'serve' to book it.")


def _takes(method: Any, names: tuple[str, ...]) -> bool:
    try:
        inspect.signature(method).bind(*names)
    except TypeError:
        return False
    except ValueError:  # written in C: nothing is known about it
        return True
    return True


def policy_node(kind: str, chosen: Any, default: Mapping[str, Any], seed: int) -> Mapping[str, Any]:
    """The node of a policy in a pool: a name of the group, a node with a `_target_`, or the default."""
    node = default if chosen is None else chosen
    if isinstance(chosen, str):
        node = group_node(f"policy/{kind}", chosen, seed)
    if isinstance(node, Mapping) and isinstance(node.get("predictor"), str):  # a part that is a choice itself
        return {**node, "predictor": group_node("predictor", node["predictor"], seed)}
    return node  # maker() says what is wrong with anything else

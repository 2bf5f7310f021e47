"""Whether a value from yaml fits the annotation of the argument it is for, and how to say what would."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from math import isnan
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from airi_sim.core.errors import BadInput

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "null"}


def check_arguments(target: Callable[..., Any], arguments: Mapping[str, Any], key: str, what: str) -> None:
    """BadInput for the first of `arguments` that `target` does not take, lacks, or annotates otherwise.

    `key` is where the arguments stand in the config, `what` is what messages call their owner.
    """
    parameters = _parameters(target)
    names = [name for name, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name, value in arguments.items():
        if name not in names:
            if open_ended:
                continue
            raise unknown_key(key, name, names, what)
        annotation = parameters[name].annotation
        if not fits(value, annotation):
            raise not_possible(f"{key}.{name}", value, words(annotation))
    missing = [name for name in names if parameters[name].default is inspect.Parameter.empty and name not in arguments]
    if missing:
        raise BadInput(f"{what} needs {key}.{missing[0]}=...: it has no default.")


def unknown_key(parent: str, name: str, known: Sequence[str], owner: str = "") -> BadInput:
    """What is said of a key that nobody reads: what there is instead, and the nearest."""
    key = f"{parent}.{name}" if parent else name
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    return BadInput(f"unknown key '{key}': {owner or parent or 'the config'} has {', '.join(known) or 'none'}{hint}")


def not_possible(key: str, value: Any, wanted: str) -> BadInput:
    """What is said of a value of the wrong type or out of range."""
    return BadInput(f"{key}={shown(value)} is not possible: it must be {wanted}.")


def shown(value: Any) -> str:
    """A value as one writes it on the command line."""
    plain = {None: "null", True: "true", False: "false"}
    return plain[value] if value is None or isinstance(value, bool) else str(value)


def _parameters(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(target, eval_str=True).parameters
    except NameError:  # names that only a type checker imports: the text says nothing then
        return inspect.signature(target).parameters


def fits(value: Any, annotation: Any) -> bool:
    """Whether a plain value can be what the annotation says; unclear annotations fit everything."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if annotation in (Any, inspect.Parameter.empty):
        return True
    if annotation in SIMPLE:
        return SIMPLE[annotation](value)
    if annotation is None:
        return value is None
    kind = origin or annotation
    if not inspect.isclass(kind):
        return True
    if issubclass(kind, Mapping):
        return isinstance(value, Mapping) and (not inner or all(fits(one, inner[-1]) for one in value.values()))
    if issubclass(kind, Sequence):
        return isinstance(value, list | tuple) and (not inner or all(fits(one, inner[0]) for one in value))
    return not (getattr(kind, "_is_protocol", False) and _plain(value))


def words(annotation: Any) -> str:
    """What an annotation asks for, in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(words(one) for one in inner))
    if origin is Literal:
        return " or ".join(shown(one) for one in inner)
    kind = origin or annotation
    if kind in WORDS or not inspect.isclass(kind):
        return WORDS.get(kind, "null" if kind is None else str(kind))
    if issubclass(kind, Mapping):
        return f"a mapping {{key: value}}{_of(inner[-1:])}"
    if issubclass(kind, Sequence):
        return f"a list{_of(inner[:1])}"
    return "an object, {_target_: module.Class}" if getattr(kind, "_is_protocol", False) else kind.__name__


def _of(inner: Sequence[Any]) -> str:
    return f" of which each is {words(inner[0])}" if inner and inner[0] in WORDS else ""


def _plain(value: Any) -> bool:
    """Not an object: a Protocol asks for methods, which plain values do not have."""
    return value is None or isinstance(value, str | int | float | Mapping | list | tuple)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not isnan(value)


SIMPLE: dict[Any, Callable[[Any], bool]] = {
    int: _whole,
    float: _number,
    bool: lambda value: isinstance(value, bool),
    str: lambda value: isinstance(value, str),
    NoneType: lambda value: value is None,
}
"""Tests of annotations that are compared as they are."""

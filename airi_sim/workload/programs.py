"""Programs: what a request does, as plain generators that yield calls and receive replies. They run in both worlds."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from inspect import signature
from typing import Any

from airi_sim.core.errors import BadInput, unknown
from airi_sim.core.types import Call, Program, Request


def chat(request: Request) -> Call:
    """One call of one model with the prompt of the request: no generator is needed for that."""
    return Call("generate", request.tokens, request.budget, request.model, request.prefix)


def rag(request: Request, k: int = 4, chunk_tokens: int = 64) -> Program:
    """Retrieval-augmented generation: embed the question, search `k` chunks of `chunk_tokens` tokens, answer.

    The prompt is the question and the chunks after it. The last prefix id of the question is left out, because it may
    cover less than a whole block and would then speak for tokens of the chunks. A failed step ends the program.
    """
    question = yield Call("embed", request.tokens)
    if question.status != "finished":
        return
    found = yield Call("search", inputs=(question.job,), items=k)
    if found.status != "finished":
        return
    prompt = request.tokens + k * chunk_tokens
    yield Call("generate", prompt, request.budget, request.model, request.prefix[:-1], inputs=(found.job,))


PROGRAMS: dict[str, Callable[[Request], Program | Call]] = {"chat": chat, "rag": rag}
"""Programs by the name that a request or `workload.program` gives."""


def program(name: str) -> Callable[[Request], Program | Call]:
    """The program of a name: one of PROGRAMS, or anybody's function written `module.function`, which takes the request;
    else BadInput."""
    if name in PROGRAMS:
        return PROGRAMS[name]
    module, _, function = name.rpartition(".")
    if not module:
        raise unknown("program", name, [*PROGRAMS, "module.function"])
    try:
        found: Callable[[Request], Program | Call] = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise BadInput(f"program '{name}' cannot be imported ({error}); write it as module.function.") from None
    if not callable(found) or not _takes_one(found):
        raise BadInput(
            f"program '{name}' cannot be called with a request: write def {function}(request) and yield Calls."
        )
    return found


def _takes_one(function: Callable[..., Any]) -> bool:
    """Whether one argument will do; where nobody can tell, it will."""
    try:
        signature(function).bind(None)
    except TypeError:
        return False
    except ValueError:  # some builtins have no signature
        pass
    return True

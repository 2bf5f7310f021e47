"""Programs: what a request does, as plain generators that yield calls and receive replies. They run in both worlds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from inspect import signature
from typing import Any

from airi_sim.core.errors import BadInput, unknown
from airi_sim.core.types import Call, Program, Request

K, CHUNK, QUESTION = 4, 64, 64
"""Chunks that an answer reads; tokens of a chunk, as of a search pool that does not say; most tokens of a question that
a reranker reads beside each chunk."""

make = tuple.__new__
"""Builds a NamedTuple at three fifths of the price of its own constructor (CPython 3.11)."""


def chat(request: Request) -> Call:
    """One call of one model with the prompt of the request: no generator is needed for that."""
    return make(Call, ("generate", request.tokens, request.budget, request.model, request.prefix, (), 1))


def rag(request: Request, k: int = K, chunk_tokens: int = CHUNK, candidates: int = 0) -> Program:
    """Retrieval-augmented generation: embed the question, search `k` chunks of `chunk_tokens` tokens, answer. With
    `candidates` so many are searched, and a reranker keeps the best `k`.

    The prompt is the question and the chunks after it. The last prefix id of the question is left out, because it may
    cover less than a whole block and would then speak for tokens of the chunks. A failed step ends the program.
    """
    question = yield Call("embed", request.tokens)
    if question.status != "finished":
        return
    found = yield Call("search", inputs=(question.job,), items=candidates or k)
    if found.status != "finished":
        return
    if candidates:
        found = yield _ranking(request, candidates, k, chunk_tokens, (found.job,))
        if found.status != "finished":
            return
    yield _answer(request, k * chunk_tokens, (found.job,))


def rag_rerank(request: Request, chunk_tokens: int = CHUNK) -> Program:
    """`rag` that searches twice as many chunks as it reads, and lets a reranker choose."""
    return rag(request, chunk_tokens=chunk_tokens, candidates=2 * K)


def guarded(request: Request) -> Program:
    """A classifier reads the prompt before the model does, and the answer before the user does."""
    before = yield Call("classify", request.tokens, prefix=request.prefix)
    if before.status != "finished":
        return
    answer = yield chat(request)
    if answer.status == "finished":
        yield Call("classify", answer.tokens_out, inputs=(answer.job,))


def recommend(request: Request, candidates: int = 2 * K, k: int = K, chunk_tokens: int = CHUNK) -> Program:
    """A recommendation with a reason: embed the query, search `candidates` items, look up the features of the user
    and of each item, rank by both, let the model tell of the best `k`."""
    query = yield Call("embed", request.tokens)
    if query.status != "finished":
        return
    replies = yield [
        Call("search", inputs=(query.job,), items=candidates),
        Call("features", 1 + candidates),
    ]
    if any(reply.status != "finished" for reply in replies):
        return
    best = yield _ranking(request, candidates, k, chunk_tokens, tuple([reply.job for reply in replies]))
    if best.status == "finished":
        yield _answer(request, k * chunk_tokens, (best.job,))


def multimodal(request: Request, images: int = 1, image_tokens: int = 64) -> Program:
    """A question about `images`, each `image_tokens` tokens of the prompt once the vision tower has seen it. They
    stand after the question, as the chunks of `rag` do."""
    seen = yield Call("vision", images * image_tokens, items=images)
    if seen.status == "finished":
        yield _answer(request, images * image_tokens, (seen.job,))


def _ranking(request: Request, candidates: int, k: int, chunk_tokens: int, inputs: tuple[int, ...]) -> Call:
    """Each of the candidates is read together with the question; `k` are kept."""
    pair = min(request.tokens, QUESTION) + chunk_tokens
    return Call("rerank", candidates * pair, budget=k, inputs=inputs, items=candidates)


def _answer(request: Request, more: int, inputs: tuple[int, ...]) -> Call:
    """The model reads the question and `more` tokens that earlier jobs found."""
    return Call("generate", request.tokens + more, request.budget, request.model, request.prefix[:-1], inputs=inputs)


PROGRAMS: dict[str, Callable[[Request], Program | Call]] = {
    "chat": chat,
    "rag": rag,
    "rag_rerank": rag_rerank,
    "guarded": guarded,
    "recommend": recommend,
    "multimodal": multimodal,
}
"""Programs by the name that a request or `workload.program` gives."""


def reading(chunk_tokens: int) -> dict[str, Callable[[Request], Program | Call]]:
    """PROGRAMS, of which those that read what a search found expect so many tokens in each chunk."""
    readers: tuple[Callable[..., Program], ...] = (rag, rag_rerank, recommend)
    return PROGRAMS | {reader.__name__: partial(reader, chunk_tokens=chunk_tokens) for reader in readers}


CALLS = {
    "rag": ("embed", "search"),
    "rag_rerank": ("embed", "search", "rerank"),
    "guarded": ("classify",),
    "recommend": ("embed", "search", "features", "rerank"),
    "multimodal": ("vision",),
}
"""Services that a built-in program calls besides the model."""


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

"""Built-in programs: which calls they make, in which order, and that they end where a step fails."""

from __future__ import annotations

from typing import Any

import pytest

from airi_sim.core.types import Call, Reply, Request
from airi_sim.workload.programs import CALLS, PROGRAMS, guarded, multimodal, rag_rerank, reading, recommend

REQUEST = Request(7, 1.0, 100, budget=20, model="m", prefix=(4, 5))


def steps_of(program: Any, request: Request = REQUEST, failing: int = -1) -> list[list[Call]]:
    """All calls of a program, in steps; call number `failing` fails."""
    steps, flow, answer, made = [], program(request), None, 0
    if isinstance(flow, Call):
        return [[flow]]
    while True:
        try:
            calls = flow.send(answer)
        except StopIteration:
            return steps
        several = calls if isinstance(calls, list) else [calls]
        steps.append(several)
        replies = []
        for call in several:
            status = "failed" if made == failing else "finished"
            replies.append(Reply(7000 + made, status, 12 if call.kind == "generate" else 0))
            made += 1
        answer = replies if isinstance(calls, list) else replies[0]


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_a_program_calls_what_the_table_says(name: str) -> None:
    kinds = [call.kind for step in steps_of(PROGRAMS[name]) for call in step]
    assert set(kinds) == {"generate", *CALLS.get(name, ())}
    assert kinds.count("generate") == 1


@pytest.mark.parametrize("name", sorted(CALLS))
def test_a_program_ends_with_the_step_that_fails(name: str) -> None:
    steps = steps_of(PROGRAMS[name])
    for failing in range(sum(map(len, steps))):
        ended = steps_of(PROGRAMS[name], failing=failing)
        assert ended == steps[: len(ended)]
        assert sum(map(len, ended[:-1])) <= failing < sum(map(len, ended))


def test_a_reranker_reads_more_than_the_answer() -> None:
    _, [search], [rerank], [answer] = steps_of(rag_rerank)
    assert (search.items, rerank.items, rerank.budget) == (8, 8, 4)
    assert (rerank.inputs, answer.inputs) == ((7001,), (7002,))
    assert rerank.tokens == 8 * (64 + 64)
    assert answer == Call("generate", 100 + 4 * 64, 20, "m", (4,), (7002,))
    _, _, [short], _ = steps_of(rag_rerank, Request(7, 0.0, 10))
    assert short.tokens == 8 * (10 + 64)


def test_a_guard_reads_the_prompt_and_the_answer() -> None:
    [before], [answer], [after] = steps_of(guarded)
    assert (before.tokens, before.prefix) == (100, (4, 5))
    assert answer == Call("generate", 100, 20, "m", (4, 5))
    assert (after.kind, after.tokens, after.inputs) == ("classify", 12, (7001,))


def test_a_recommendation_looks_up_the_user_and_each_item() -> None:
    _, [search, features], [rerank], [answer] = steps_of(recommend)
    assert features.tokens == 1 + search.items == 9
    assert rerank.inputs == (7001, 7002)
    assert answer.inputs == (7003,)


def test_an_answer_has_room_for_the_images() -> None:
    [vision], [answer] = steps_of(lambda request: multimodal(request, images=3, image_tokens=10))
    assert (vision.tokens, vision.items) == (30, 3)
    assert (answer.tokens, answer.inputs, answer.prefix) == (130, (7000,), (4,))


def test_a_prompt_has_room_for_the_chunks_of_the_pool() -> None:
    for name, program in reading(10).items():
        answer = next(call for step in steps_of(program) for call in step if call.kind == "generate")
        assert answer.tokens == {"rag": 140, "rag_rerank": 140, "recommend": 140, "multimodal": 164}.get(name, 100)

"""What executors know: lengths and prompts; and programs, driven by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airi_sim.core.errors import BadInput
from airi_sim.core.types import Call, Item, Job, Reply, Request
from airi_sim.workload import PROGRAMS, LengthScript, program
from airi_sim.workload.programs import chat, rag

IDS = st.integers(-(1 << 63), (1 << 63) - 1)


def job(request=0, tokens=64, prefix=(), index=0, budget=0):
    return Job(Request(request, 0.0, tokens), Call(tokens=tokens, prefix=tuple(prefix), budget=budget), index, 0.0)


def test_lengths_are_learned_capped_by_the_budget_and_forgotten():
    script, item = LengthScript(), Item(Request(3, 0.0, 8), 40)
    script.learn(item)
    assert script.output_tokens(job(3)) == 40
    assert script.output_tokens(job(3, budget=16)) == 16
    script.forget(item.request)
    script.forget(item.request)
    with pytest.raises(KeyError):
        script.output_tokens(job(3))


@given(
    common=st.lists(IDS, max_size=4), tails=st.tuples(IDS, IDS), block=st.integers(1, 40),
    tokens=st.tuples(st.integers(1, 300), st.integers(1, 300)), vocabulary=st.integers(1000, 200_000),
)  # fmt: skip
def test_equal_ids_give_equal_tokens_whoever_asks(common, tails, block, tokens, vocabulary):
    jobs = [job(n, size, [*common, tail], index=n) for n, (size, tail) in enumerate(zip(tokens, tails, strict=True))]
    first, second = (LengthScript(block, seed=n).prompt(one, vocabulary) for n, one in enumerate(jobs))
    shared = min(len(common) * block, *tokens)
    assert first[:shared] == second[:shared]
    assert (len(first), len(second)) == tokens
    assert all(0 <= token < vocabulary for token in first + second)


def test_prompts_repeat_but_differ_by_id_seed_request_and_call():
    seeds = [LengthScript(16, seed) for seed in (0, 1)]
    prompts = [
        seeds[0].prompt(one, 50_000) for one in (job(), job(request=1), job(index=1), job(prefix=[1]), job(prefix=[2]))
    ]
    prompts.append(seeds[1].prompt(job(), 50_000))
    assert len(set(map(tuple, prompts))) == len(prompts)
    assert prompts[0] == LengthScript(16).prompt(job(), 50_000)
    assert prompts[3][16:] == prompts[4][16:]  # what no id covers is the same, id or not


def test_blocks_of_one_id_do_not_depend_on_their_place():
    tokens = LengthScript(16).prompt(job(tokens=48, prefix=[5, 9, 5]), 50_000)
    assert tokens[:16] == tokens[32:]
    assert tokens[:16] != tokens[16:32]


def test_tokens_use_the_whole_vocabulary_evenly():
    tokens = LengthScript(16).prompt(job(tokens=40_000), 4)
    assert [tokens.count(k) / 40_000 for k in range(4)] == pytest.approx([0.25] * 4, abs=0.015)
    pairs = list(pairwise(tokens))
    assert pairs.count((0, 0)) / len(pairs) == pytest.approx(1 / 16, abs=0.01)


REQUEST = Request(7, 1.0, 100, budget=20, model="m", prefix=(4, 5))


def test_chat_is_one_call():
    assert chat(REQUEST) == Call("generate", 100, 20, "m", (4, 5))


def test_rag_embeds_searches_and_answers_with_the_chunks():
    steps = rag(REQUEST, k=3, chunk_tokens=50)
    embed = next(steps)
    search = steps.send(Reply(7000, "finished"))
    answer = steps.send(Reply(7001, "finished"))
    assert (embed.kind, embed.tokens) == ("embed", 100)
    assert (search.kind, search.items, search.inputs) == ("search", 3, (7000,))
    assert answer == Call("generate", 250, 20, "m", (4,), (7001,))
    with pytest.raises(StopIteration):
        steps.send(Reply(7002, "finished", 20))


@pytest.mark.parametrize("failing", [0, 1])
def test_rag_stops_where_a_step_fails(failing):
    steps = rag(REQUEST)
    next(steps)
    for step in range(failing):
        steps.send(Reply(step, "finished"))
    with pytest.raises(StopIteration):
        steps.send(Reply(failing, "failed"))


def test_programs_are_found_by_name_or_module():
    assert {name: program(name) for name in PROGRAMS} == PROGRAMS
    assert program("airi_sim.workload.programs.rag") is rag
    with pytest.raises(BadInput, match=r"there are chat, .*module\.function, .*rag.*; did you mean 'rag'"):
        program("rga")

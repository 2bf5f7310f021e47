"""Speculation with a real draft model: greedy output is the target's own, sampled output has its distribution."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from airi_sim.core.errors import BadInput
from airi_sim.core.log import Log
from airi_sim.core.types import FOREVER, Item, Plan, Request
from airi_sim.engine.driver import Driver
from airi_sim.hardware.choose import cost_model
from airi_sim.hardware.deployment import Deployment
from airi_sim.hardware.speculation import Speculation
from airi_sim.models.layers import Attention, LayerKind, Mlp
from airi_sim.models.spec import ModelSpec
from airi_sim.policies.admission import Always
from airi_sim.policies.batchers import ChunkedPrefill
from airi_sim.policies.evictors import LastIn
from airi_sim.policies.faults import Retry
from airi_sim.policies.models import Fixed as FixedModel
from airi_sim.policies.queues import Fcfs
from airi_sim.policies.routers import RoundRobin
from airi_sim.runtime.pool import Pool
from airi_sim.runtime.runtime import Runtime
from airi_sim.runtime.speculation import SpeculativeServer
from airi_sim.runtime.token_server import TokenServer
from airi_sim.runtime.view import Board
from airi_sim.workbench import comparison
from airi_sim.workbench.build import build_backend
from airi_sim.workbench.config import load_config, plain
from airi_sim.workbench.execute import perform
from airi_sim.workbench.speculation import accepted_places, mean_rate
from airi_sim.workload.script import LengthScript
from real_backend import choice, weights
from real_backend.backend import TorchBackend
from real_backend.choice import accepted, drawn, remainder
from tests.laws.worlds import chat, copy, workload
from tests.real_backend.reference import logits as dense
from tests.real_backend.world import LLAMA, POOL, SPECS, Fixed, llama

pytestmark = pytest.mark.real
Make = Callable[..., TorchBackend]


def narrow(name: str, hidden: int, vocab: int) -> ModelSpec:
    layer = LayerKind(1, Attention(heads=4, kv_heads=2, head_dim=16), Mlp(ffn=32), 2 * hidden)
    return ModelSpec(name, kinds=(layer,), hidden=hidden, vocab=vocab, max_len=256)


STRANGER = narrow("stranger", 32, 128)  # agrees with nobody
SHORTER = llama("shorter", layers=1)  # the first layer of LLAMA, as long as both are drawn from one seed


def running(
    backend: TorchBackend, pool: Deployment, items: Sequence[Item], caching: bool = False, script: Any = None
) -> tuple[dict[int, list[int]], Log, Any]:
    """Run items on one replica; the tokens of each request, the log and the server."""
    script = script or LengthScript(16, 0)
    log, speculating = Log(), pool.speculation
    limits: dict[str, Any] = {"blocks": pool.kv_blocks, "block": pool.block_size, "seats": pool.max_num_seqs}
    limits |= {"limit": pool.max_num_batched_tokens, "caching": caching, "hash_block": 16, "detailed": True}
    lookahead = {} if speculating is None else {"lookahead": speculating.tokens}
    kind: Any = TokenServer if speculating is None else SpeculativeServer
    server = kind("r/0", 0, Fcfs, ChunkedPrefill(), LastIn(), log, max_len=250, **limits, **lookahead)
    pools = [Pool("r", "generate", "", [server], RoundRobin(), Board([server], 0.0, FOREVER))]
    runtime = Runtime(
        pools, log, admission=Always(), model_router=FixedModel(), faults=Retry(), programs={"chat": chat}
    )
    kept, put = {}, backend.results.put

    def keep(job: Any, result: Any) -> None:
        kept[job.request] = list(result.ids)
        put(job, result)

    backend.results.put = keep  # type: ignore[method-assign]
    executor = backend.executor(pool, 0, script)
    driver = Driver(runtime, [executor], learn=getattr(script, "learn", None))
    driver.run(iter([Item(copy(item.request), item.output_tokens) for item in items]))
    backend.results.put = put  # type: ignore[method-assign]
    return kept, log, server


def drafting(draft: ModelSpec, tokens: int = 3, **more: Any) -> dict[str, Any]:
    return {"speculation": Speculation(draft, tokens, **more), "max_num_batched_tokens": 64}


# -- greedy


WAYS: dict[str, tuple[int, ModelSpec, int, dict[str, Any]]] = {
    "batched": (0, SHORTER, 3, {}),
    "refused": (1, STRANGER, 2, {}),
    "always right": (2, LLAMA, 4, {}),
    "chunked": (3, SHORTER, 4, {"max_num_batched_tokens": 32}),
    "short of memory": (4, SHORTER, 3, {"kv_blocks": 34}),
    "short of memory and right": (5, LLAMA, 3, {"kv_blocks": 34}),
}
"""Seed, draft, drafted tokens, limits of the server."""


@pytest.mark.parametrize("way", WAYS)
def test_greedy_output_is_the_targets_own(make_backend: Make, way: str) -> None:
    """Batched with others, in chunks, preempted, with prefix hits, and stopped in the middle of what was accepted."""
    seed, draft, tokens, limits = WAYS[way]
    items = workload(seed, 12, 1000.0, 60, 40, groups=2)
    items[3].request.budget = 7
    pool = replace(POOL, kv_blocks=256, max_num_seqs=6)
    alone, _, _ = running(make_backend(seed=seed), pool, items)
    pool = replace(pool, speculation=Speculation(draft, tokens), **limits)
    found, log, server = running(make_backend(seed=seed), pool, items, caching=True)
    assert found == alone
    assert server.free == server.total
    assert sorted(chain(server.pages.spare, *server.pages.cached.values())) == list(range(1, server.total + 1))
    assert (sum(row[13] for row in log.jobs) > 0) == way.startswith("short of memory")
    assert sum(row[12] for row in log.jobs) > 0, "no prefix was shared"
    rate = mean_rate(accepted_places(log.spans), tokens)
    assert rate == 1.0 if draft is LLAMA else 0.0 <= rate < 0.9


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_family_may_draft_and_be_drafted_for(make_backend: Make, spec: ModelSpec) -> None:
    items = workload(2, 6, 1000.0, 40, 30)
    pool = replace(POOL, model=spec, kv_blocks=256)
    alone, _, _ = running(make_backend(), pool, items)
    for draft in (replace(spec, name="other"), SHORTER):
        found, _, _ = running(make_backend(), replace(pool, **drafting(draft)), items)
        assert found == alone


def test_rejected_tokens_leave_no_trace_in_the_memory_of_either_model(make_backend: Make) -> None:
    """After a run under a draft that is always refused, another job that reuses its blocks reads nothing of it."""
    items = [Item(Request(i, 5.0 * i, 30), 40) for i in range(4)]
    pool = replace(POOL, kv_blocks=20, max_num_seqs=1)
    alone, _, _ = running(make_backend(), pool, items)
    found, log, _ = running(make_backend(), replace(pool, **drafting(STRANGER, 6)), items)
    assert found == alone
    assert mean_rate(accepted_places(log.spans), 6) < 0.1


# -- rejection sampling


quarters = st.sampled_from([(a, b, 4 - a - b) for a in range(5) for b in range(5 - a)])


@given(quarters, st.lists(quarters, min_size=3, max_size=3), quarters, st.lists(quarters, min_size=3, max_size=3))
@settings(max_examples=15, deadline=None)
def test_accepted_and_replaced_tokens_have_exactly_the_targets_distribution(p0: Any, p1: Any, q0: Any, q1: Any) -> None:
    """Every outcome of two drafted tokens and the one more, by enumeration: with probabilities in quarters, each choice
    changes at twelfths only, so twelve values of each random number hold all there is."""
    n = 12
    axes = [(torch.arange(n, dtype=torch.float64) + 0.5) / n] * 5
    propose0, propose1, accept0, accept1, more = (grid.flatten() for grid in torch.meshgrid(*axes, indexing="ij"))
    first, then, guess, guess_then = (torch.tensor(shares, dtype=torch.float64) / 4 for shares in (p0, p1, q0, q1))
    x0 = drawn(guess.expand(len(more), -1), propose0)
    x1 = drawn(guess_then[x0], propose1)
    p = torch.stack([first.expand(len(more), -1), then[x0], first.expand(len(more), -1)], 1)
    q = torch.stack([guess.expand(len(more), -1), guess_then[x0]], 1)
    agreed = accepted(p, q, torch.stack([x0, x1], 1), torch.stack([accept0, accept1], 1))
    last = drawn(remainder(p, q, agreed), more)
    token0 = torch.where(agreed > 0, x0, last)
    assert torch.bincount(token0, minlength=3).tolist() == (first * len(more)).tolist()
    token1 = torch.where(agreed > 1, x1, last)
    for x in range(3):
        here = (agreed > 0) & (x0 == x)
        assert torch.bincount(token1[here], minlength=3).tolist() == (then[x] * int(here.sum())).tolist()
    both = agreed == 2
    assert torch.bincount(last[both], minlength=3).tolist() == (first * int(both.sum())).tolist()


SMALL, GUESS = narrow("small", 32, 5), narrow("guess", 16, 5)
PROMPT = [3, 1, 4, 1]
MANY, OUTPUT, TEMPERATURE = 2500, 4, 0.8


def sampled(backend: TorchBackend, pool: Deployment) -> Counter[tuple[int, ...]]:
    """The texts of many requests with one prompt."""

    class Script(Fixed):
        def prompt(self, job: Any, vocabulary: int) -> list[int]:
            return PROMPT

    items = [Item(Request(i, 0.0, len(PROMPT)), OUTPUT) for i in range(MANY)]
    script = Script(dict.fromkeys(range(MANY), OUTPUT))
    found, _, _ = running(backend, pool, items, script=script)
    return Counter(tuple(tokens) for tokens in found.values())


def exact(seed: int) -> dict[tuple[int, ...], float]:
    """The target's probability of every text, by the dense reference."""
    tensors = weights.draw(SMALL, seed)
    texts: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(OUTPUT):
        texts = {
            (*text, token): chance * share
            for text, chance in texts.items()
            for token, share in enumerate(
                (dense(SMALL, tensors, [*PROMPT, *text])[-1].double() / TEMPERATURE).softmax(-1).tolist()
            )
        }
    return texts


def unlikely(found: Counter[tuple[int, ...]], expected: dict[tuple[int, ...], float]) -> float:
    """p-value of the counts; rare texts are counted together."""
    common = [text for text, chance in expected.items() if chance * MANY >= 5]
    seen = np.array([found[text] for text in common] + [MANY - sum(found[text] for text in common)])
    wanted = np.array([expected[text] for text in common])
    return float(chisquare(seen, np.append(wanted, 1 - wanted.sum()) * MANY).pvalue)


def test_sampled_texts_have_the_targets_distribution(make_backend: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the whole engine, many sequences a pass; a draft that is believed too readily is found out."""
    what = Speculation(GUESS, 2, method="rejection", temperature=TEMPERATURE)
    pool = replace(POOL, model=SMALL, kv_blocks=2000, max_num_seqs=250, max_num_batched_tokens=2500, speculation=what)
    expected = exact(0)
    found = sampled(make_backend(), pool)
    assert unlikely(found, expected) > 0.001
    assert sampled(make_backend(), pool) == found
    monkeypatch.setattr(choice, "remainder", lambda p, _, agreed: p[torch.arange(len(p)), agreed])
    assert unlikely(sampled(make_backend(), pool), expected) < 1e-4


# -- calibration and the other world


def test_both_models_are_calibrated_as_the_passes_they_make(make_backend: Make) -> None:
    backend = make_backend(cocalibrate=True)
    pool = replace(POOL, kv_blocks=256, **drafting(SHORTER, 3))
    running(backend, pool, workload(1, 20, 1000.0, 60, 40))
    profile = backend.profile("default")
    assert profile["draft"] == "shorter"
    kinds = profile["kinds"]
    assert set(kinds) == {"generate", "draft"}
    assert kinds["draft"]["samples"] > 2 * kinds["generate"]["samples"] > 20
    probe = backend.probe(pool)
    assert not any(plan.sequences for plan, _ in probe.samples), "checked tokens are chunks"
    assert {plan.sequences > 0 for plan, _ in probe.beside["draft"]} == {True, False}
    device = type("Device", (), {"profile": profile})()
    cost = cost_model(replace(pool, accelerator=device, precision="fp32"))
    plan = Plan(0, 0.0, sequences=4, context=160, longest=40)
    alone = cost_model(replace(pool, accelerator=device, precision="fp32", speculation=None))
    assert cost.affine(plan).first > alone.affine(plan).first
    with pytest.raises(BadInput, match="with the draft model 'shorter', but pool 'default' speculates with 'stranger'"):
        cost_model(replace(pool, accelerator=device, precision="fp32", speculation=Speculation(STRANGER)))


DRAFT = (
    "{_target_: airi_sim.models.spec.model, _convert_: all, name: d, config: {model_type: llama, hidden_size: 64,"
    " intermediate_size: 96, num_hidden_layers: 1, num_attention_heads: 4, num_key_value_heads: 2, head_dim: 16,"
    " vocab_size: 256, max_position_embeddings: 4096, rms_norm_eps: 1.0e-05, rope_theta: 10000.0}}"
)


@pytest.mark.parametrize("method", ["greedy", "rejection"])
def test_a_measured_run_replayed_decides_the_same(tmp_path: Path, method: str) -> None:
    """Two replicas, memory short, shared prefixes, a queue that books service."""
    words = ["validate=parity", "workload.n=50", "workload.rate=inf", "server.kv_blocks=32"]
    config = plain(load_config([*words, f"server.speculation={{draft: {DRAFT}, tokens: 3, method: {method}}}"]))
    world = perform(config, tmp_path, build_backend(config), "")
    assert sum(row[4] == "preempt" for row in world.log.decisions) > 10
    found = comparison.replay(comparison.pin_memory(config, world), world)
    assert found.parity.identical, str(found.parity)
    assert found.apart_s == 0
    assert 0.02 < mean_rate(accepted_places(world.log.spans), 3) < 0.9
    assert sum(server.passes for server in world.runtime.servers) < sum(row[9] for row in world.log.requests) / 4


# -- bad input

SIM = "backend=sim"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["server.speculation={tokens: 4}"], "server.speculation needs a draft model"),
        (["server.speculation={draft: tiny-drift}"], "tiny-draft"),
        (["server.speculation={draft: tiny-draft, token: 4}"], "tokens"),
        (["server.speculation={draft: tiny-draft, tokens: 0}"], "server.speculation.tokens"),
        (["server.speculation={draft: tiny-draft, acceptance: 1.2}"], "server.speculation.acceptance"),
        (["server.speculation={draft: tiny-draft, method: best}"], "greedy, rejection"),
        (["server.speculation={draft: small}"], "choose a draft model with the same vocabulary"),
        (["server.speculation={draft: tiny-draft}", "server.max_num_batched_tokens=1000"], "set it to 1280 or more"),
        (["server.speculation={draft: tiny-draft}", "server.swap_bytes=1e9"], "leave one of them out"),
        (["server.speculation={draft: tiny-draft, acceptance: no.json}", SIM], "cannot read the accepted"),
        (["server.speculation=tiny-draft"], "server.speculation"),
        (["server.speculation={draft: tiny-draft}", "model=tiny-vlm"], "a draft model reads no images"),
        (["server.speculation={draft: tiny-draft}", "pool.tp=2", "backend.workers=0"], r"pool\.tp=1"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, words: list[str], says: str) -> None:
    given_ = ["model=tiny", "workload.n=2", *([] if SIM in words else ["backend=torch", "backend.device=cpu"]), *words]
    with pytest.raises(BadInput, match=says):
        perform(config := plain(load_config(given_)), tmp_path, build_backend(config), "")
    assert not list(tmp_path.iterdir())

"""Laws of a pass by the kinds of its layers and by what the engine does around it."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airi_sim.core.errors import BadInput
from airi_sim.core.types import Item, Request
from airi_sim.hardware.cost import PhysicsCost
from airi_sim.hardware.deployment import Deployment
from airi_sim.hardware.fit import profile_from_samples
from airi_sim.hardware.kernels import Kernels
from airi_sim.hardware.serving import BARE, Serving
from airi_sim.workbench.build import build
from airi_sim.workbench.config import load_config, plain
from tests.hardware.parts import deployment, load, make_plan

WINDOWED = [PhysicsCost(deployment(name)) for name in ("gpt-oss-20b", "gemma-3-27b", "llama-4-scout")]
LATENT = PhysicsCost(deployment("deepseek-v2-lite"))


def cost(serving, model="llama-3.1-8b", accelerator="h100-sxm", **more):
    return PhysicsCost(
        Deployment("p", "generate", load("model", model), load("accelerator", accelerator), serving, **more)
    )


def stretches(model, contexts, passes):
    """Seconds of so many passes, a closed form after the other as an executor takes them."""
    total = done = 0.0
    while done < passes:
        first, step, valid = model.affine(make_plan([c + int(done) for c in contexts]))
        some = min(valid, passes - int(done))
        assert some >= 1
        total += some * first + step * some * (some - 1) / 2
        done += some
    return total


@pytest.mark.parametrize("model", [*WINDOWED, LATENT], ids=["gpt-oss", "gemma", "scout", "deepseek"])
@given(contexts=st.lists(st.integers(1, 9000), min_size=1, max_size=20), passes=st.integers(1, 300))
def test_closed_forms_end_where_a_window_fills(model, contexts, passes):
    stepwise = sum(model.affine(make_plan([c + i for c in contexts])).first for i in range(passes))
    assert stretches(model, contexts, passes) == pytest.approx(stepwise, rel=1e-12)


def test_a_window_bounds_what_context_costs():
    full, windowed = PhysicsCost(deployment("llama-3.1-8b")), WINDOWED[0]
    for model, share in ((full, 1.0), (windowed, 0.5)):  # every other layer of gpt-oss looks back on 128 tokens
        near, far = (model.affine(make_plan([context] * 32)).step for context in (64, 4000))
        assert far == pytest.approx(near * share)
    short, long = (windowed.affine(make_plan([], [(tokens, 0)])).first / tokens for tokens in (1000, 16000))
    assert long < short


def test_fast_forward_stops_where_a_window_fills():
    items = [Item(Request(i, i * 0.01, 40 + 13 * i), 300 + i) for i in range(6)]
    recorded = {"_target_": "airi_sim.workbench.fidelity.simulate.Recorded", "items": items}
    ran = []
    for fast in ("true", "false"):
        words = ["model=gpt-oss-20b", "server.kv_blocks=5000", f"engine.fast_forward={fast}"]
        world = build({**plain(load_config(words)), "workload": recorded})
        world.driver.run(iter(world.workload))
        ran.append(({row[0]: row[7] for row in world.log.requests}, len(world.log.plans)))
    (times, plans), (stepwise, passes) = ran
    assert times == pytest.approx(stepwise, abs=1e-6)
    assert plans < 60 < 300 < passes


@given(n=st.integers(1, 64), context=st.integers(200, 4000), part=st.floats(0, 1))
def test_context_that_others_read_too_costs_less(n, context, part):
    shared = int(n * context * part)
    own = cost(Serving("own")), cost(Serving("cached", shared=0.25))
    plan, beside = make_plan([context] * n), make_plan([context] * n, shared=shared)
    assert own[0].affine(plan) == own[0].affine(beside)
    saved = own[1].affine(plan).first - own[1].affine(beside).first
    per_token = own[1].affine(plan).step / n
    assert saved == pytest.approx(0.75 * per_token * shared, abs=1e-12)
    assert own[1].affine(plan).step == own[1].affine(beside).step


@given(tokens=st.integers(1, 2000))
def test_graphs_pad_to_the_next_captured_size(tokens):
    serving = Serving("graphs", graph_step=8, graph_most=512)
    padded = serving.padded(tokens)
    assert padded >= tokens and padded < tokens + 8
    assert padded in (1, 2, 4) or padded % 8 == 0 or tokens > 512
    assert BARE.padded(tokens) == tokens


def test_launching_hides_behind_long_kernels_and_is_a_floor_under_short_ones():
    serving = Serving("eager", launch_s=4e-4, step_s=1e-3)
    assert serving.paced(0.0, 80) == pytest.approx(33e-3)
    assert serving.paced(1.0, 80) == pytest.approx(1.001, rel=1e-3)
    assert serving.paced(0.03, 80) > 0.031 + 1e-3


def test_an_engine_has_its_own_coefficients_on_an_accelerator():
    own = {"h100-sxm": {"e_kv": 0.4, "step_s": 5e-3}}
    plain_engine, other = Serving("x"), Serving("x", per_accelerator=own)
    plan = make_plan([1000] * 8)
    assert cost(other).affine(plan).step == pytest.approx(
        cost(plain_engine).affine(plan).step * load("accelerator", "h100-sxm").e_kv / 0.4
    )
    assert cost(other, accelerator="l40s").affine(plan) == cost(plain_engine, accelerator="l40s").affine(plan)
    with pytest.raises(BadInput, match="unknown coefficient of serving 'x' on h100-sxm 'e_kw'"):
        cost(Serving("x", per_accelerator={"h100-sxm": {"e_kw": 1.0}}))


def test_modules_that_quantisation_leaves_alone_read_their_full_width():
    device = load("accelerator", "h100-sxm")
    spec = load("model", "llama-3.1-8b")
    whole, half = (Kernels(spec, device, BARE, precision, 1) for precision in ("bf16", "fp8"))
    assert whole.head(1) == half.head(1)
    assert half.product(1, 4096, 4096, "mlp") < 0.7 * whole.product(1, 4096, 4096, "mlp")
    kept = replace(spec, quantisation=None, precision="fp8")
    assert Kernels(kept, device, BARE, "fp8", 1).layers(1) == half.layers(1)


def test_latent_attention_reads_less_and_is_on_every_accelerator():
    one, two = (PhysicsCost(deployment("deepseek-v2-lite", tp=tp)) for tp in (1, 2))
    plan = make_plan([4000] * 32)
    assert one.affine(plan).step == pytest.approx(two.affine(plan).step, rel=0.3)
    dense = PhysicsCost(deployment("llama-2-7b")).affine(plan).step
    assert one.affine(plan).step < dense / 8


def test_the_api_path_and_the_pass_ahead_are_in_ttft_and_end_to_end_alike():
    words = ["model=tiny", "server.kv_blocks=500", "workload=poisson", "workload.rate=0.01", "workload.n=10"]

    def times(*more):
        world = build(plain(load_config([*words, *more])))
        world.driver.run(iter(world.workload))
        return {row[0]: (row[6] - row[5], row[7] - row[5]) for row in world.log.requests}

    idle = times("serving.request_s=0.0", "serving.ahead=false")
    api = times("serving.request_s=0.02", "serving.stream_s=0.01", "serving.ahead=true")
    for request, (ttft, e2e) in idle.items():  # alone in the engine: nothing to wait for but the API
        assert api[request] == pytest.approx((ttft + 0.03, e2e + 0.03), abs=1e-5)


def test_who_arrives_while_a_pass_runs_is_in_the_pass_after_the_next():
    config = plain(load_config(["model=llama-3.1-8b", "serving.request_s=0.0", "server.prefix_caching=false"]))
    recorded = "airi_sim.workbench.fidelity.simulate.Recorded"
    items = [Item(Request(0, 0.0, 64), 400), Item(Request(1, 1.0, 64), 2)]

    def first_token(ahead):
        serving = {**config["serving"], "ahead": ahead}
        world = build({**config, "serving": serving, "workload": {"_target_": recorded, "items": items}})
        world.driver.run(iter(world.workload))
        decode = next(row for row in world.log.plans if row[5] and not row[6])
        return world.log.requests[0][6], decode[10]

    (at_once, seconds), (later, _) = first_token(False), first_token(True)
    assert later - at_once == pytest.approx(seconds, rel=0.01)


def test_a_measured_device_has_no_edges_of_an_engine_that_did_not_run_there(tmp_path):
    samples = [(make_plan([10] * n), 0.01 + 0.001 * n) for n in range(1, 9)]
    profile = profile_from_samples({"generate": samples}, device="d", model="tiny", precision="bf16")
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    words = ["model=tiny", "accelerator=profile", f"accelerator.path={tmp_path}/profile.json", "server.kv_blocks=500"]
    world = build(plain(load_config(words)))
    assert world.runtime.request_s == 0 and not world.runtime.servers[0].ahead
    simulated = build(plain(load_config(["model=tiny", "server.kv_blocks=500"])))
    assert simulated.runtime.request_s == 6.7e-3 and simulated.runtime.servers[0].ahead


def test_the_api_path_is_that_of_the_engine_on_the_accelerator_and_unlike_ones_are_said():
    config = plain(load_config(["model=tiny", "pools={a: {accelerator: l4}, b: {accelerator: h100-sxm}}"]))
    own = {"l4": {"request_s": 0.02}}
    world = build({**config, "serving": {**config["serving"], "per_accelerator": own}})
    assert world.runtime.request_s == 0.02
    assert any("20, 6.7 ms, and every call takes the longest" in text for text in world.warnings)
    assert not any("API" in text for text in build(config).warnings)

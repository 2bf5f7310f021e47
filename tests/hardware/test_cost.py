"""Laws of the physics cost model, and the memory left for KV."""

from itertools import pairwise

import pytest
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from airi_sim.core.errors import BadInput
from airi_sim.core.types import Affine
from airi_sim.engine.executors import CostExecutor
from airi_sim.hardware.accelerator import Accelerator
from airi_sim.hardware.choose import cost_model
from airi_sim.hardware.cost import PhysicsCost, kv_blocks
from airi_sim.hardware.deployment import Deployment
from airi_sim.hardware.kernels import Kernels, layouts
from airi_sim.hardware.service import ServiceCost
from airi_sim.hardware.serving import BARE, Serving
from tests.hardware.parts import CONF, deployment, load, make_plan
from tests.laws.worlds import Lengths

COST = PhysicsCost(deployment())
CONTEXTS = st.lists(st.integers(1, 8000), min_size=1, max_size=64)
CHUNKS = st.lists(st.tuples(st.integers(1, 2048), st.integers(0, 4096)), max_size=4)


def first(plan, cost=COST):
    return cost.affine(plan).first


@given(contexts=CONTEXTS, chunks=CHUNKS, passes=st.integers(1, 50))
def test_equal_passes_sum_in_closed_form(contexts, chunks, passes):
    whole = COST.affine(make_plan(contexts, chunks))
    total = passes * whole.first + whole.step * passes * (passes - 1) / 2
    stepwise = sum(first(make_plan([c + i for c in contexts], chunks)) for i in range(passes))
    assert whole.passes >= passes
    assert total == pytest.approx(stepwise, rel=1e-12)


@given(contexts=CONTEXTS, chunks=CHUNKS, more=st.integers(1, 4000))
def test_more_work_takes_longer(contexts, chunks, more):
    base = first(make_plan(contexts, chunks))
    assert first(make_plan([contexts[0] + more, *contexts[1:]], chunks)) > base
    assert first(make_plan([*contexts, more], chunks)) > base
    assert first(make_plan(contexts, [*chunks, (more, 0)])) > base
    assert first(make_plan(contexts, [(more, 100)])) > first(make_plan(contexts, [(more, 0)]))


@given(chunk=st.integers(2, 4000), past=st.integers(0, 4000))
def test_a_prompt_in_two_chunks_has_the_same_attention_pairs(chunk, past):
    kernels_only = PhysicsCost(deployment(serving="torch"))
    whole, half = make_plan([], [(chunk, past)]), chunk // 2
    parts = [make_plan([], [(half, past)]), make_plan([], [(chunk - half, past + half)])]
    assert whole.prefill_attention == sum(part.prefill_attention for part in parts)
    assert first(whole, kernels_only) < sum(first(part, kernels_only) for part in parts)


def test_decoding_is_bound_by_bandwidth_and_prefill_by_compute():
    spec, device = load("model", "llama-3.1-8b"), load("accelerator", "h100-sxm")
    read = spec.weight_bytes() / device.bandwidth
    assert read < first(make_plan([100])) < 1.7 * read
    compute = spec.flops_per_token(1024) * 2048 / device.peak_flops["bf16"]
    assert compute < first(make_plan([], [(2048, 0)])) < 1.7 * compute


def test_mixed_passes_pay_more_for_their_decodes():
    decodes = [4000] * 64
    alone, beside = COST.affine(make_plan(decodes)), COST.affine(make_plan(decodes, [(16, 0)]))
    assert beside.step == pytest.approx(alone.step * load("accelerator", "h100-sxm").mixed)


def test_tensor_parallelism_divides_the_work_and_adds_all_reduces():
    prompt = make_plan([], [(2048, 0)])
    times = [first(prompt, PhysicsCost(deployment(tp=tp))) for tp in (1, 2, 4, 8)]
    assert times == sorted(times, reverse=True)
    assert all(low > high / 2 for high, low in pairwise(times))
    slow = PhysicsCost(deployment(accelerator="l40s", tp=8))
    assert first(prompt, slow) > first(prompt, PhysicsCost(deployment(accelerator="l40s", tp=2)))


def test_host_work_is_a_term_of_its_own():
    spec, device = load("model", "llama-3.1-8b"), load("accelerator", "h100-sxm")
    host = Serving("host", step_s=1e-3, sequence_s=1e-5, token_s=1e-6, sampler_s=0.0)
    plan = make_plan([100, 200], [(30, 0)])
    with_host = first(plan, PhysicsCost(Deployment("p", "generate", spec, device, host)))
    without = first(plan, PhysicsCost(Deployment("p", "generate", spec, device, BARE)))
    assert with_host - without == pytest.approx(1e-3 + 3e-5 + 32e-6)


@given(m=st.integers(1, 4096))
def test_a_matrix_product_is_slower_than_both_its_roofs(m):
    kernels = Kernels(load("model", "llama-3.1-8b"), load("accelerator", "h100-sxm"), BARE, "bf16", 1)
    n, k = 4096, 4096
    device = kernels.device
    roofs = max(2 * m * n * k / (989e12 * device.e_c), 2 * (n * k + m * (n + k)) / (device.bandwidth * device.e_m))
    assert roofs < kernels.product(m, n, k) < 2**0.5 * roofs + 5e-6


def test_lower_precision_is_faster_and_experts_cost_by_what_they_touch():
    assert first(make_plan([100]), PhysicsCost(deployment(precision="fp8"))) < first(make_plan([100]))
    sparse = PhysicsCost(deployment("qwen3-30b-a3b"))
    one, many = first(make_plan([100]), sparse), first(make_plan([100] * 64), sparse)
    dense = PhysicsCost(deployment("qwen3-32b"))
    assert one < first(make_plan([100]), dense) / 2
    assert many / one > first(make_plan([100] * 64), dense) / first(make_plan([100]), dense)


def test_predictions_say_where_they_are_weak():
    assert COST.notes == ()
    assert any("mixture of experts" in note for note in PhysicsCost(deployment("mixtral-8x7b")).notes)
    assert any("low confidence" in note for note in PhysicsCost(deployment(accelerator="mi300x")).notes)


def blocks(model="llama-3.1-8b", accelerator="h100-sxm", **more):
    return kv_blocks(load("model", model), load("accelerator", accelerator), load("serving", "vllm"), **more)


@pytest.mark.parametrize(
    ("model", "tp", "tokens", "reported"),
    [("llama-2-7b", 1, 2048, 7462), ("qwen2.5-7b", 1, 2048, 65352), ("mistral-nemo-12b", 1, 2048, 19251),
     ("llama-3.1-70b", 4, 2048, 30425), ("yi-34b", 2, 2048, 20793)],
)  # fmt: skip
def test_kv_blocks_are_near_what_vllm_reports(model, tp, tokens, reported):
    assert blocks(model, tp=tp, max_num_batched_tokens=tokens) == pytest.approx(reported, rel=0.04)


@given(utilization=st.floats(0.4, 0.95), size=st.sampled_from([1, 16, 32, 128]))
def test_kv_blocks_fill_what_weights_leave(utilization, size):
    spec, device = load("model", "llama-3.1-8b"), load("accelerator", "h100-sxm")
    count = kv_blocks(spec, device, BARE, block_size=size, gpu_memory_utilization=utilization, max_num_batched_tokens=1)
    left = utilization * device.memory_bytes - spec.weight_bytes() - 1e6
    assert left - size * 131072 * 2 < count * size * 131072 < left + 1e6


def test_a_model_that_does_not_fit_says_which_tp_does():
    with pytest.raises(BadInput, match=r"needs 1\.4\de\+11 bytes .* 7\.65e\+10 bytes .* smallest tp that fits is 2"):
        blocks("llama-3.1-70b")
    assert blocks("llama-3.1-70b", tp=2) >= 1
    with pytest.raises(BadInput, match="no tp fits"):
        blocks("tiny", gpu_memory_utilization=1e-9)


@pytest.mark.parametrize(("model", "tp"), [("llama-3.1-8b", 3), ("qwen2.5-7b", 8), ("llama-3.1-8b", 0), ("yi-34b", 7)])
def test_heads_that_cannot_be_laid_out(model, tp):
    with pytest.raises(BadInput, match=f"tp={tp} "):
        blocks(model, tp=tp)
    with pytest.raises(BadInput, match=f"tp={tp} "):
        PhysicsCost(deployment(model, tp=tp))


def test_layouts_replicate_kv_heads_but_never_split_one():
    assert layouts(load("model", "qwen3-30b-a3b"), 32) == [1, 2, 4, 8, 16, 32]
    assert layouts(load("model", "yi-34b"), 64) == [1, 2, 4, 8, 56]


def test_bad_utilization_and_missing_parts():
    with pytest.raises(BadInput, match="gpu_memory_utilization"):
        blocks(gpu_memory_utilization=1.5)
    with pytest.raises(BadInput, match="needs a model"):
        PhysicsCost(Deployment("p", "generate", None))
    with pytest.raises(BadInput, match="unknown precision"):
        PhysicsCost(deployment(precision="fp9"))


@pytest.mark.parametrize("path", sorted((CONF / "accelerator").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_accelerator_instantiates_and_simulates(path):
    if path.stem == "profile":
        with pytest.raises(InstantiationException, match=r"accelerator\.path="):
            instantiate(OmegaConf.load(path))
        return
    device = load("accelerator", path.stem)
    assert device.name == path.stem
    assert device.source
    assert device.idle_w < device.tdp_w
    assert 1e-4 < first(make_plan([100]), PhysicsCost(deployment("tiny", path.stem))) < 1


@pytest.mark.parametrize("path", sorted((CONF / "serving").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_serving_instantiates(path):
    serving = load("serving", path.stem)
    assert serving.name == path.stem
    assert serving.source
    assert first(make_plan([100]), PhysicsCost(deployment(serving=path.stem))) > serving.step_s


def test_accelerators_refuse_nonsense():
    with pytest.raises(BadInput, match="bandwidth must be greater than 0"):
        Accelerator("x", {"bf16": 1e12}, 1e9, 0.0)
    with pytest.raises(BadInput, match="peak_flops"):
        Accelerator("x", {}, 1e9, 1e9)
    with pytest.raises(BadInput, match="unknown confidence 'sure'"):
        Accelerator("x", {"bf16": 1e12}, 1e9, 1e9, confidence="sure")
    with pytest.raises(BadInput, match="step_s cannot be negative"):
        Serving("x", step_s=-1.0)


def test_services_cost_their_tokens_and_items():
    service = {"constant": 0.01, "per_token": 1e-4, "per_item": 1e-3}
    pool = Deployment("e", "embed", None, service=service)
    affine = cost_model(pool).affine(make_plan([], [(10, 0), (20, 0)]))
    assert affine.first == pytest.approx(0.01 + 30e-4 + 2e-3)
    assert affine.step == 0
    with pytest.raises(BadInput, match="in seconds"):
        ServiceCost()


def test_a_search_pool_scans_its_index():
    pool = Deployment("s", "search", None, load("accelerator", "cpu"), service={"vectors": 100_000, "width": 128})
    one, two = (cost_model(pool).affine(make_plan([], [(1, 0)] * n)).first for n in (1, 2))
    assert two - one == pytest.approx(100_000 * 128 * 4 / 1.02e10)
    with pytest.raises(BadInput, match="vectors and width"):
        cost_model(Deployment("s", "search", None))


def test_pools_without_measurements_get_physics():
    assert isinstance(cost_model(deployment()), PhysicsCost)


def test_an_affine_of_ones_own_is_what_counts() -> None:
    """Regression: the executor asked the `line` of the class that was derived from."""

    class Twice(PhysicsCost):
        def affine(self, plan):
            one = super().affine(plan)
            return Affine(2 * one.first, 2 * one.step, one.passes)

    class Lined:
        def __init__(self):
            self.line = 3.0

        def affine(self, plan):
            return Affine(1.0)

    plan = make_plan([100])
    asked = [CostExecutor(cost, Lengths([])).start(plan, 0.0) for cost in (COST, Twice(deployment()), Lined())]
    assert asked[1] == pytest.approx(2 * asked[0])
    assert asked[2] == 1.0

"""Calibration: samples cover the range of a run without being its passes, and never disturb it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airi_sim.core.errors import BadInput
from airi_sim.core.types import Plan
from real_backend.backend import TorchBackend
from real_backend.calibrate import Limits, Range, Shape, alike, calibrate, draw_shape, log_uniform
from tests.real_backend.world import LLAMA, POOL, Fixed, Mini, Ticks, job

pytestmark = pytest.mark.real
Make = Callable[..., TorchBackend]


def run(backend: TorchBackend) -> Mini:
    mini = Mini(backend.executor(POOL, 0, Fixed()))
    mini.admit([job(index, 3 + 5 * index) for index in range(5)])
    mini.drain(16)
    return mini


@given(
    st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 900), st.integers(1, 900), st.integers(1, 200)
)  # fmt: skip
def test_shapes_stay_within_range_and_memory(seed: int, seqs: int, context: int, tokens: int, blocks: int) -> None:
    context = min(context, blocks * 8)
    within = Range(Limits(seqs, context, tokens, blocks))
    within.widen()
    shape = draw_shape(np.random.default_rng(seed), within, 8)
    assert shape.contexts or shape.chunks
    assert len(shape.contexts) <= seqs
    assert all(1 <= each <= context for each in shape.contexts)
    assert sum(each // 8 + 1 for each in shape.contexts) <= max(blocks, context // 8 + 1)
    assert sum(new for _, new in shape.chunks) <= tokens
    assert all(new >= 1 and before >= 0 and before + new <= context for before, new in shape.chunks)


def test_shapes_cover_decodes_prefill_and_mixed_passes_over_the_whole_range() -> None:
    within = Range(Limits(64, 1000, 512, 4096))
    within.widen()
    random = np.random.default_rng(0)
    shapes = [draw_shape(random, within, 16) for _ in range(600)]
    kinds = {(bool(shape.contexts), bool(shape.chunks)) for shape in shapes}
    assert kinds == {(True, False), (False, True), (True, True)}
    for values, most in (
        ([len(shape.contexts) for shape in shapes if shape.contexts], 64),
        ([max(shape.contexts) for shape in shapes if shape.contexts], 1000),
        ([sum(new for _, new in shape.chunks) for shape in shapes if shape.chunks], 512),
    ):
        assert min(values) == 1
        assert max(values) > 0.8 * most
        assert 0.2 < np.mean(np.array(values) < most**0.5) < 0.8
    assert any(before for shape in shapes for before, _ in shape.chunks)


def test_octaves_are_equally_likely() -> None:
    random = np.random.default_rng(0)
    drawn = np.log2([log_uniform(random, 1023) for _ in range(4000)]).astype(int)
    assert np.bincount(drawn, minlength=10) == pytest.approx(np.full(10, 400), rel=0.2)


def test_a_shape_becomes_the_plan_a_server_would_write() -> None:
    plan = Shape((5, 9), ((0, 4), (7, 2))).plan()
    assert (plan.sequences, plan.context, plan.longest, plan.prefill_tokens) == (2, 14, 9, 6)
    assert plan.prefill_attention == 4 * 4 + 2 * (14 + 2)
    assert plan.prefill_context == 4 + 9
    assert len(plan.slices) == 2


def test_the_range_follows_the_run_up_to_the_limits() -> None:
    within = Range(Limits(8, 100, 64, 20))
    within.note(4, 20, 60)
    assert (within.sequences, within.context, within.tokens) == (6, 26, 64)
    within.note(1, 99, 1)
    assert (within.sequences, within.context, within.tokens) == (6, 100, 64)


@given(
    st.integers(0, 2**32), st.integers(1, 40), st.integers(4, 900), st.integers(4, 900), st.integers(4, 200)
)  # fmt: skip
def test_resembling_shapes_stay_within_range_and_memory(
    seed: int, seqs: int, context: int, tokens: int, blocks: int
) -> None:
    random = np.random.default_rng(seed)
    within = Range(Limits(seqs, min(context, blocks * 8), tokens, blocks))
    within.widen()
    model = draw_shape(random, within, 8)
    shape = alike(random, model, within, 8)
    assert bool(shape.contexts) == bool(model.contexts)
    assert bool(shape.chunks) == bool(model.chunks)
    assert len(shape.contexts) <= seqs
    assert all(1 <= each <= within.context for each in shape.contexts)
    assert sum(each // 8 + 1 for each in shape.contexts) <= max(blocks, within.context // 8 + 1)
    assert sum(new for _, new in shape.chunks) <= tokens
    assert all(new >= 1 and before >= 0 and before + new <= within.context for before, new in shape.chunks)


def test_resembling_shapes_are_about_as_large() -> None:
    random, within = np.random.default_rng(0), Range(Limits(64, 1000, 512, 4096))
    within.widen()
    shapes = [alike(random, Shape((300,) * 10, ((0, 80), (50, 40))), within, 16) for _ in range(500)]
    assert np.mean([len(shape.contexts) for shape in shapes]) == pytest.approx(10, rel=0.1)
    assert np.mean([np.mean(shape.contexts) for shape in shapes]) == pytest.approx(300, rel=0.1)
    assert np.mean([sum(new for _, new in shape.chunks) for shape in shapes]) == pytest.approx(120, rel=0.1)
    assert {shape.chunks[0][0] for shape in shapes} == {0}
    assert len(set(shapes)) == 500


def test_a_sample_after_each_prompt_and_every_other_decode_and_the_run_does_not_notice(make_backend: Make) -> None:
    quiet, sampling = make_backend(timer=Ticks()), make_backend(timer=Ticks(), cocalibrate=True)
    runs = [run(backend) for backend in (quiet, sampling)]
    assert runs[0].now == runs[1].now
    answers = [[list(b.results.get(1000 * i).ids) for i in range(5)] for b in (quiet, sampling)]  # type: ignore[union-attr]
    assert answers[0] == answers[1]
    probe = sampling.probe(POOL)
    samples = probe.samples
    assert len(sampling.measurements()) == runs[1].passes
    decoded = sum(not row["prefill_tokens"] for row in sampling.measurements())
    assert len(samples) == runs[1].passes - decoded + decoded // 2 < runs[1].passes
    assert all(sample.seconds == 3.0 for sample in samples)
    assert max(plan.sequences for plan, _ in samples) <= 7
    assert max(plan.longest for plan, _ in samples) <= 36
    assert max(plan.prefill_tokens for plan, _ in samples) <= 21


def test_a_wall_clock_is_not_delayed_by_calibration(make_backend: Make) -> None:
    backend = make_backend(clock="wall", cocalibrate=True)
    run(backend)
    with pytest.raises(BadInput, match="no calibration sample"):
        backend.profile()


def test_the_profile_predicts_what_was_sampled(make_backend: Make) -> None:
    """With a clock of three seconds a pass the fitted time of every sample is three seconds."""
    fitted = pytest.importorskip("airi_sim.hardware.features")
    pytest.importorskip("scipy")
    backend = make_backend(timer=Ticks())
    profile = calibrate(POOL, backend, samples=60)
    generate = profile["kinds"]["generate"]
    assert json.loads(json.dumps(profile)) == profile
    assert (profile["model"], profile["precision"], profile["block_size"]) == ("llama", "fp32", POOL.block_size)
    assert generate["samples"] == 60
    for plan, _ in backend.probe(POOL).samples:
        row = fitted.features(plan, generate["knots"], POOL.block_size)
        assert np.dot(row, list(generate["coefficients"].values())) == pytest.approx(3.0, rel=1e-3)


def test_a_profile_holds_the_services_too(make_backend: Make) -> None:
    pytest.importorskip("scipy")
    backend = make_backend(cocalibrate=True)
    search = replace(POOL, name="search", kind="search", model=None, service={"vectors": 100, "width": LLAMA.hidden})
    for pool in (replace(POOL, name="embed", kind="embed"), search):
        executor = backend.executor(pool, 0, Fixed())
        for index in range(4):
            batch = [job(index, 5), job(index + 10, 9)]
            plan = Plan(0, 0.0, [(each, each.tokens) for each in batch], batch, prefill_tokens=14)
            executor.finish(plan, executor.start(plan, 0.0))
    run(backend)
    assert set(backend.profile()["kinds"]) == {"generate", "embed", "search"}

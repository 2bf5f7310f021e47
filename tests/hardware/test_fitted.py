"""The fitted model: equal to its features, unbiased under multiplicative noise, strict about its file."""

import json
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airi_sim.core.errors import BadInput
from airi_sim.hardware.accelerator import calibrated
from airi_sim.hardware.choose import cost_model
from airi_sim.hardware.deployment import Deployment
from airi_sim.hardware.features import features, knots_to, names, ramps
from airi_sim.hardware.fit import fit, fit_service, profile_from_samples
from airi_sim.hardware.fitted import FittedCost, load_profile, service_from
from tests.hardware.parts import load, make_plan

KNOTS = knots_to(256)
TRUE = dict.fromkeys(names(KNOTS), 1e-3) | {
    "constant": 4e-3, "sequences": 1e-4, "padded_context": 2e-7, "prefill_attention": 3e-8, "prefill_context": 1e-7,
    "slices": 5e-4, "decodes": 8e-4,
}  # fmt: skip
PROFILE = {
    "format": "airi-profile/1", "device": "box", "model": "tiny", "precision": "fp32", "block_size": 16,
    "kinds": {"generate": {"knots": KNOTS, "coefficients": TRUE, "ranges": {"tokens": [1, 256]}},
              "embed": {"constant": 1e-3, "per_token": 1e-5, "per_item": 1e-4}},
}  # fmt: skip
PLANS = st.builds(
    make_plan,
    st.lists(st.integers(1, 2000), max_size=40),
    st.lists(st.tuples(st.integers(1, 300), st.integers(0, 1000)), max_size=3),
).filter(lambda plan: plan.sequences + plan.prefill_tokens > 0)


def dot(plan, found):
    return sum(c * x for c, x in zip(found.values(), features(plan, KNOTS, 16), strict=True))


def random_plan(rng):
    contexts = [rng.randint(1, 512)] * rng.choice([0, 1, 2, 4, 8, 16, 32])
    chunk = (rng.randint(1, 200), rng.choice([0, 64, 256]))
    return make_plan(contexts, [chunk] if not contexts or rng.random() < 0.5 else [])


def noisy(count, sigma, seed=0):
    """Samples whose noise has mean 1 (log-normal), as timings of a busy machine do."""
    rng = random.Random(seed)
    plans = [random_plan(rng) for _ in range(count)]
    return [(plan, dot(plan, TRUE) * rng.lognormvariate(-sigma * sigma / 2, sigma)) for plan in plans]


@given(plan=PLANS)
def test_affine_equals_features_times_coefficients(plan):
    assert FittedCost(PROFILE).affine(plan).first == pytest.approx(dot(plan, TRUE), rel=1e-12)


@given(contexts=st.lists(st.integers(1, 100), min_size=1, max_size=8), passes=st.integers(1, 60))
def test_following_the_break_points_equals_single_passes(contexts, passes):
    cost, done, total = FittedCost(PROFILE), 0, 0.0
    while done < passes:
        affine = cost.affine(make_plan([c + done for c in contexts]))
        assert affine.passes >= 1
        k = min(affine.passes, passes - done)
        total += k * affine.first + affine.step * k * (k - 1) / 2
        done += k
    stepwise = sum(dot(make_plan([c + i for c in contexts]), TRUE) for i in range(passes))
    assert total == pytest.approx(stepwise, rel=1e-12)


def test_a_profile_from_before_a_feature_still_serves(tmp_path):
    path = tmp_path / "profile.json"
    kept = {name: value for name, value in TRUE.items() if name != "decodes"}
    path.write_text(json.dumps(PROFILE | {"kinds": {"generate": {"knots": KNOTS, "coefficients": kept}}}))
    old, plan = FittedCost(load_profile(path)), make_plan([40], [(9, 0)])
    assert old.affine(plan).first == pytest.approx(FittedCost(PROFILE).affine(plan).first - TRUE["decodes"])


def test_padding_is_whole_blocks_of_the_longest():
    row = dict(zip(names(KNOTS), features(make_plan([15, 40]), KNOTS, 16), strict=True))
    assert row["padded_context"] == 2 * 48
    assert row["sequences"] == 2
    assert FittedCost(PROFILE).affine(make_plan([15, 40])).passes == 8
    assert FittedCost(PROFILE).affine(make_plan([48])).passes == 16


@given(plan=PLANS)
def test_a_pass_without_decodes_has_no_decode_terms(plan):
    row = dict(zip(names(KNOTS), features(plan, KNOTS, 16), strict=True))
    assert (row["padded_context"] > 0) == (row["sequences"] > 0) == (plan.sequences > 0)
    if not plan.sequences:
        assert FittedCost(PROFILE).affine(plan).step == 0


@given(tokens=st.integers(1, 1000), knots=st.sampled_from([[1], [1, 2], [1, 3], KNOTS]))
def test_ramps_draw_the_broken_line_through_the_knots(tokens, knots):
    line = [float(knot) for knot in knots]
    steps = [line[0], *(high - low for low, high in pairwise(line))]
    drawn = sum(c * x for c, x in zip(steps, ramps(tokens, knots), strict=True))
    assert drawn == pytest.approx(tokens if len(knots) > 1 else 1.0)


@pytest.mark.parametrize(("most", "knots"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8])])
def test_knots_double_up_to_the_largest_pass(most, knots):
    assert knots_to(most) == knots


def test_a_fit_recovers_what_was_there():
    found = fit(noisy(300, 0.0), KNOTS)
    rng = random.Random(9)
    for plan in (random_plan(rng) for _ in range(50)):
        assert dot(plan, found) == pytest.approx(dot(plan, TRUE), rel=1e-3)


def test_a_fit_hits_the_mean_under_multiplicative_noise():
    """Weights 1/measured^2 would be low by the variance of the noise: 1 - exp(-sigma^2), 12 % here and more."""
    rng = random.Random(3)
    unseen = [random_plan(rng) for _ in range(200)]
    truth = sum(dot(plan, TRUE) for plan in unseen)
    fits = [fit(noisy(400, 0.35, seed), KNOTS) for seed in range(3)]
    totals = [sum(dot(plan, found) for plan in unseen) for found in fits]
    assert sum(totals) / 3 == pytest.approx(truth, rel=0.03)


@given(seed=st.integers(0, 5))
def test_fitted_time_never_falls_with_more_tokens(seed):
    found = fit(noisy(60, 0.5, seed), KNOTS)
    times = [dot(make_plan([], [(n, 0)]), found) for n in range(1, 300, 7)]
    assert times == sorted(times)


def test_services_are_fitted_too():
    plans = [make_plan([], [(n, 0)] * k) for n in (1, 10, 100) for k in (1, 2, 8)]
    samples = [(plan, 1e-3 + 1e-5 * plan.prefill_tokens + 1e-4 * len(plan.slices)) for plan in plans]
    assert fit_service(samples) == pytest.approx({"constant": 1e-3, "per_token": 1e-5, "per_item": 1e-4})


def test_a_profile_survives_its_file(tmp_path):
    embed = [(make_plan([], [(n, 0)]), 1e-3 + 1e-5 * n) for n in (1, 10, 100)]
    made = profile_from_samples(
        {"generate": noisy(200, 0.1), "embed": embed, "search": []},
        device="box", model="tiny", precision="fp32", memory_bytes=2e9,
    )  # fmt: skip
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(made))
    loaded = load_profile(path)
    assert loaded == made
    assert set(loaded["kinds"]) == {"generate", "embed"}
    section = loaded["kinds"]["generate"]
    assert section["samples"] == 200
    assert section["residual_rel"] == pytest.approx(0.1, rel=0.25)
    assert abs(section["bias_rel"]) < 0.02
    device = calibrated(str(path), usd_per_hour=0.1)
    assert (device.name, device.memory_bytes, device.usd_per_hour) == ("box", 2e9, 0.1)
    pool = Deployment("p", "generate", load("model", "tiny"), device, precision="fp32")
    assert isinstance(cost_model(pool), FittedCost)
    assert service_from(loaded, "embed").per_token == pytest.approx(1e-5)
    embed_pool = Deployment("e", "embed", None, device)
    assert cost_model(embed_pool).affine(embed[0][0]).first == pytest.approx(embed[0][1], rel=1e-6)


def without(key):
    return {name: value for name, value in PROFILE.items() if name != key}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([], "format"),
        (PROFILE | {"format": "other"}, "format"),
        (without("device"), "lacks device"),
        (PROFILE | {"block_size": 0}, "block_size"),
        (PROFILE | {"kinds": {}}, "no kinds"),
        (PROFILE | {"kinds": {"generate": []}}, "not an object"),
        (PROFILE | {"kinds": {"generate": {"knots": [2, 1], "coefficients": TRUE}}}, "rising knots"),
        (PROFILE | {"kinds": {"generate": {"knots": KNOTS, "coefficients": {"constant": 1.0}}}}, "at least 0 for to_2"),
        (PROFILE | {"kinds": {"embed": {"constant": -1, "per_token": 0, "per_item": 0}}}, "for constant"),
    ],
)
def test_a_malformed_profile_is_bad_input(tmp_path, content, problem):
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(content))
    with pytest.raises(BadInput, match=problem):
        load_profile(path)


def test_a_missing_or_unreadable_profile_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match="cannot read the calibration profile"):
        load_profile(tmp_path / "none.json")
    (tmp_path / "half.json").write_text("{")
    with pytest.raises(BadInput, match="not valid JSON"):
        load_profile(tmp_path / "half.json")
    with pytest.raises(BadInput, match=r"accelerator\.path="):
        calibrated()


def test_a_profile_serves_only_what_it_measured(tmp_path):
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(PROFILE))
    device = calibrated(str(path))
    with pytest.raises(BadInput, match="model tiny, but pool 'p' has small"):
        cost_model(Deployment("p", "generate", load("model", "small"), device, precision="fp32"))
    with pytest.raises(BadInput, match="block_size 16"):
        cost_model(Deployment("p", "generate", load("model", "tiny"), device, precision="fp32", block_size=32))
    with pytest.raises(BadInput, match="no 'search' section"):
        cost_model(Deployment("s", "search", None, device))


def test_a_fit_needs_samples():
    with pytest.raises(BadInput, match="needs samples"):
        fit([])
    with pytest.raises(BadInput, match="more than 0 seconds"):
        fit([(make_plan([1]), 0.0)])
    with pytest.raises(BadInput, match="nothing was measured"):
        profile_from_samples({}, device="d", model="m", precision="fp32")

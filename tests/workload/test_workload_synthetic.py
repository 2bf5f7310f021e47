"""Generated workloads: determinism, common random numbers, scaling laws, and closed forms of their statistics."""

from __future__ import annotations

import tracemalloc
from collections import Counter, deque
from itertools import islice
from math import erf, log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airi_sim.core.errors import BadInput
from airi_sim.workload import Labelled, Synthetic, build
from airi_sim.workload.lengths import KINDS, lengths
from airi_sim.workload.seeds import stream
from airi_sim.workload.synthetic import CHUNK
from airi_sim.workload.tenants import zipf

LOGNORMAL = {"kind": "lognormal", "mean": 200, "sigma": 0.7, "max": 2000}


def synthetic(**keys):
    return Synthetic(**({"rate": 4.0, "n": 500, "input": LOGNORMAL, "output": LOGNORMAL} | keys))


def column(workload, name):
    return [i.output_tokens if name == "output" else getattr(i.request, name) for i in workload]


COLUMNS = ("arrival", "tokens", "output", "prefix")


def same(a, b):
    return {name for name in COLUMNS if column(a, name) == column(b, name)}


def test_the_same_seed_gives_the_same_workload_again_and_again():
    workload = synthetic(prefix={"groups": 3, "tokens": 64})
    assert list(workload) == list(workload) == list(synthetic(prefix={"groups": 3, "tokens": 64}))
    assert same(synthetic(), synthetic(seed=1)) == {"prefix"}


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"rate": 8.0}, {"arrival"}),
        ({"burstiness": 0.5}, {"arrival"}),
        ({"output": 7}, {"output"}),
        ({"prefix": {"groups": 9, "tokens": 160}}, {"prefix"}),
        ({"input": LOGNORMAL | {"sigma": 0.6}}, {"tokens", "prefix"}),
    ],
)
def test_common_random_numbers_a_change_touches_its_own_column_only(change, changed):
    base = {"prefix": {"groups": 4, "tokens": 320}}
    assert set(COLUMNS) - same(synthetic(**base), synthetic(**(base | change))) == changed


def test_input_and_output_of_one_distribution_are_independent():
    workload = synthetic(n=4000)
    correlation = np.corrcoef(column(workload, "tokens"), column(workload, "output"))[0, 1]
    assert abs(correlation) < 4 / sqrt(4000)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, CHUNK + 5), seed=st.integers(0, 2**40))
def test_a_shorter_workload_is_the_beginning_of_a_longer_one(n, seed):
    keys = {"seed": seed, "prefix": {"groups": 5, "tokens": 48, "zipf": 1.0}}
    long = islice(synthetic(n=CHUNK + 9, **keys), n)
    assert list(synthetic(n=n, **keys)) == list(long)


@settings(max_examples=20, deadline=None)
@given(rate=st.floats(0.01, 1000), factor=st.sampled_from([0.5, 2.0, 4.0]))
def test_rate_only_stretches_time(rate, factor):
    slow, fast = column(synthetic(rate=rate), "arrival"), column(synthetic(rate=rate * factor), "arrival")
    assert fast == [t / factor for t in slow]


def test_ids_count_up_and_times_never_fall_across_chunks():
    workload = synthetic(n=2 * CHUNK + 3)
    assert column(workload, "id") == list(range(2 * CHUNK + 3))
    assert (np.diff(column(workload, "arrival")) > 0).all()


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_gaps_have_the_mean_of_the_rate_and_the_variation_of_the_shape(burstiness):
    n = 20_000
    gaps = np.diff(column(synthetic(n=n, rate=5.0, burstiness=burstiness), "arrival"))
    cv = burstiness**-0.5
    assert gaps.mean() == pytest.approx(0.2, rel=5 * cv / sqrt(n))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.1)


@pytest.mark.parametrize("rate", [None, float("inf")])
def test_without_a_rate_all_arrive_at_once(rate):
    assert set(column(synthetic(rate=rate, n=CHUNK + 1), "arrival")) == {0.0}


def test_memory_stays_flat():
    tracemalloc.start()
    deque(synthetic(n=60_000), maxlen=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6  # 60,000 requests at once take more than 20 MB


@settings(max_examples=50, deadline=None)
@given(
    groups=st.integers(1, 20), tokens=st.integers(0, 400), block=st.integers(1, 64), size=st.integers(1, 500),
    zipf=st.floats(0, 3),
)  # fmt: skip
def test_prefix_ids_cover_the_whole_blocks_of_what_a_group_shares(groups, tokens, block, size, zipf):
    prefix = {"groups": groups, "tokens": tokens, "zipf": zipf}
    found = set(column(synthetic(n=50, input=size, prefix=prefix, hash_block=block), "prefix"))
    assert {len(ids) for ids in found} == {min(tokens, size) // block}
    every = [one for ids in found for one in ids]
    assert len(every) == len(set(every))  # groups share nothing with each other


def test_a_shorter_prompt_of_a_group_shares_the_beginning():
    workload = synthetic(input={"kind": "empirical", "values": [40, 100]}, prefix={"groups": 1, "tokens": 80})
    assert set(column(workload, "prefix")) == {(0, 1), (0, 1, 2, 3, 4)}


def test_group_popularity_follows_zipf():
    counts = Counter(column(synthetic(n=20_000, input=64, prefix={"groups": 3, "tokens": 16, "zipf": 1.0}), "prefix"))
    shares = np.array([counts[(g,)] for g in range(3)]) / 20_000
    assert shares == pytest.approx(np.array([6, 3, 2]) / 11, abs=0.015)


def normal_cdf(x):
    return (1 + erf(x / sqrt(2))) / 2


def clipped_lognormal_mean(mean, sigma, top):
    mu = log(mean) - sigma**2 / 2
    end = (log(top) - mu) / sigma
    return mean * normal_cdf(end - sigma) + top * (1 - normal_cdf(end))


ZIPF = np.arange(1, 101) ** -1.5
MEANS = [
    ({"kind": "constant", "mean": 7}, 7),
    ({"kind": "uniform", "min": 10, "max": 20}, 15),
    ({"kind": "normal", "mean": 500, "sigma": 50}, 500),
    ({"kind": "lognormal", "mean": 1024, "sigma": 1.0, "max": 4096}, clipped_lognormal_mean(1024, 1.0, 4096)),
    ({"kind": "exponential", "mean": 300}, 300),
    ({"kind": "zipf", "exponent": 1.5, "min": 1, "max": 100}, (ZIPF * np.arange(1, 101)).sum() / ZIPF.sum()),
    ({"kind": "empirical", "values": [1, 2, 30]}, 11),
    ({"kind": "quantiles", "quantiles": [[0, 100], [0.5, 200], [1, 1000]]}, (150 + 600) / 2),
]


@pytest.mark.parametrize(("config", "mean"), MEANS)
def test_means_are_those_of_the_closed_forms(config, mean):
    drawn = lengths(config).draw(stream(0, "input"), 100_000)
    assert drawn.dtype == np.int64
    assert drawn.mean() == pytest.approx(mean, rel=0.015)


def test_every_kind_has_a_closed_form_here():
    assert {config["kind"] for config, _ in MEANS} == set(KINDS)


@pytest.mark.parametrize("config", [config for config, _ in MEANS])
def test_lengths_keep_to_their_range_and_come_in_any_portion(config):
    bounded = {"min": 12, "max": 14} | config
    drawn = lengths(bounded).draw(stream(3, "input"), 1000)
    assert drawn.min() >= bounded["min"]
    assert drawn.max() <= bounded["max"]
    rng = stream(3, "input")
    parts = [lengths(bounded).draw(rng, n) for n in (1, 299, 700)]
    assert np.concatenate(parts).tolist() == drawn.tolist()


def test_uniform_reaches_both_ends_equally_often():
    drawn = lengths({"kind": "uniform", "min": 3, "max": 5}).draw(stream(0, "input"), 30_000)
    assert [np.mean(drawn == k) for k in (3, 4, 5)] == pytest.approx([1 / 3] * 3, abs=0.015)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "lognorml", "mean": 1}, "unknown workload.input.kind 'lognorml'.*did you mean 'lognormal'"),
        ({"mean": 1}, "unknown workload.input.kind 'None'"),
        ({"kind": "constant", "mean": 4, "sigma": 1}, "no 'sigma', only mean, min, max; set workload.input.sigma=null"),
        ({"kind": "uniform", "min": 4}, "needs workload.input.max"),
        ({"kind": "uniform", "min": 4, "max": 3}, "workload.input.max must be a whole number of at least 4"),
        ({"kind": "normal", "mean": 5, "sigma": -1}, "workload.input.sigma"),
        ({"kind": "lognormal", "mean": 0, "sigma": 1}, "workload.input.mean"),
        ({"kind": "exponential", "mean": float("nan")}, "workload.input.mean"),
        ({"kind": "exponential", "mean": 5, "min": 0}, "workload.input.min"),
        ({"kind": "exponential", "mean": "5"}, "workload.input.mean"),
        ({"kind": "zipf", "exponent": 1, "min": 1, "max": 10**9}, "keeps a table"),
        ({"kind": "empirical", "values": []}, "workload.input.values"),
        ({"kind": "empirical", "values": [3, 0]}, "workload.input.values"),
        ({"kind": "quantiles", "quantiles": [[0, 5], [0.9, 6]]}, "workload.input.quantiles"),
        ({"kind": "quantiles", "quantiles": [[0, 5], [1, 4]]}, "workload.input.quantiles"),
        ({"kind": "quantiles", "quantiles": [[0, 5, 6]]}, "pairs"),
        (0, "workload.input.mean"),
    ],
)
def test_bad_lengths_are_named(config, message):
    with pytest.raises(BadInput, match=message):
        synthetic(input=config)


@pytest.mark.parametrize(
    "keys",
    [
        {"rate": 0.0}, {"rate": -1.0}, {"rate": float("nan")}, {"n": 0}, {"n": 1.5}, {"burstiness": 0.0},
        {"prefix": {"groups": -1}}, {"prefix": {"group": 1}}, {"hash_block": 0}, {"seed": -1}, {"seed": "x"},
        {"program": "nothing"},
    ],
)  # fmt: skip
def test_bad_settings_are_named(keys):
    with pytest.raises(BadInput, match=next(iter(keys))):
        synthetic(**keys)


def test_tenants_label_requests_in_proportion_and_change_nothing_else():
    workload = synthetic(n=20_000)
    labelled = build(workload, {"b": 3, "a": 1, "never": 0}, seed=5)
    tenants = column(labelled, "tenant")
    assert Counter(tenants)["a"] / 20_000 == pytest.approx(0.25, abs=0.015)
    assert set(tenants) == {"a", "b"}
    assert same(workload, labelled) == set(COLUMNS)
    assert (labelled.name, labelled.hash_block) == (workload.name, workload.hash_block)


def test_tenants_depend_on_the_seed_and_the_position_only():
    shares = {"a": 1, "b": 1}
    tenants = column(build(synthetic(), shares, seed=5), "tenant")
    assert tenants == column(build(synthetic(rate=99.0, input=3, seed=8), dict(reversed(shares.items())), 5), "tenant")
    assert tenants != column(build(synthetic(), shares, seed=6), "tenant")


def test_tenants_leave_the_items_of_others_alone():
    items = list(synthetic(n=3))

    class Fixed:
        name, hash_block = "fixed", 16

        def __iter__(self):
            return iter(items)

    fixed = Fixed()
    assert column(build(fixed, {"x": 1}), "tenant") == ["x"] * 3
    assert {item.request.tenant for item in items} == {"default"}
    assert build(fixed, None) is fixed


@pytest.mark.parametrize("tenants", [{}, {"a": -1}, {"a": 0}, {"a": float("nan")}, {"a": "x"}, ["a"]])
def test_bad_tenants_are_named(tenants):
    with pytest.raises(BadInput, match=r"workload\.tenants"):
        build(synthetic(), tenants)


def test_models_are_labels_of_their_own_and_follow_zipf():
    weights = zipf(["a", "b", "c"], 1.0)
    assert weights == pytest.approx({"a": 1.0, "b": 1 / 2, "c": 1 / 3})
    assert set(zipf(["a", "b"], 0.0).values()) == {1.0}
    models = column(Labelled(synthetic(n=20_000), weights, seed=5, field="model"), "model")
    assert Counter(models)["a"] / 20_000 == pytest.approx(6 / 11, abs=0.015)
    tenants = column(Labelled(synthetic(n=20_000), weights, seed=5), "tenant")
    assert tenants != models  # a stream of their own

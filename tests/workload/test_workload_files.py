"""Writing and reading our format give the same requests; and every yaml of the group makes a workload."""

from __future__ import annotations

from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from airi_sim.core.types import Item, Request
from airi_sim.workload import PROGRAMS, Synthetic, Trace, write_jsonl

CONF = Path(__file__).parents[2] / "conf" / "workload"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))
TEXT = st.text(max_size=8)


@st.composite
def workloads(draw):
    """Any requests in order of arrival, with ids as a reader gives them, and their block size."""
    block = draw(st.integers(1, 1024))
    times = sorted(draw(st.lists(st.floats(0, 1e6), min_size=1, max_size=8)))
    items = []
    for number, arrival in enumerate(times):
        tokens = draw(st.integers(1, 5000))
        ids = draw(st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=min(6, -(-tokens // block))))
        request = Request(
            number, arrival, tokens, 0, draw(TEXT), draw(TEXT), draw(TEXT), draw(st.sampled_from(sorted(PROGRAMS))),
            draw(st.integers(-9, 9)), draw(st.just(inf) | st.floats(arrival, arrival + 1e4)), draw(TEXT), tuple(ids),
        )  # fmt: skip
        items.append(Item(request, draw(st.integers(1, 5000))))
    return items, block


def close(request):
    """The request with times as pytest compares them: milliseconds in the file cost the last bit."""
    return pytest.approx((request.arrival, request.deadline), abs=1e-6, rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(workloads())
def test_what_is_written_is_what_is_read(workload):
    items, block = workload
    with TemporaryDirectory() as folder:
        path = Path(folder) / "w.jsonl"
        assert write_jsonl(items, path, block) == len(items)
        trace = Trace(path, format="airi")
        read = list(trace)
    assert trace.warnings == []
    assert not any(item.request.prefix for item in items) or trace.hash_block == block
    for old, new in zip(items, read, strict=True):
        assert (new.request.arrival, new.request.deadline) == close(old.request)
        new.request.arrival, new.request.deadline = old.request.arrival, old.request.deadline
        assert new == old


def test_a_generated_workload_becomes_a_trace_of_the_same_requests(tmp_path):
    made = Synthetic(4.0, 200, 300, 20, prefix={"groups": 4, "tokens": 128})
    write_jsonl(made, tmp_path / "w.jsonl", made.hash_block)
    trace = Trace("w", data_dir=tmp_path)
    assert trace.hash_block == made.hash_block
    assert [i.request.prefix for i in trace] == [i.request.prefix for i in made]
    assert [i.request.arrival for i in trace] == pytest.approx([i.request.arrival for i in made])


def test_unknown_keys_survive_a_round_trip(tmp_path):
    write_jsonl(Synthetic(4.0, 3, 9, 2), tmp_path / "a.jsonl", extras={1: {"note": [1]}})
    first = Trace(tmp_path / "a.jsonl")
    write_jsonl(first, tmp_path / "b.jsonl", first.hash_block, first.extras)
    assert Trace(tmp_path / "b.jsonl").extras == first.extras == {1: {"note": [1]}}


def test_a_writer_that_fails_leaves_nothing_behind(tmp_path):
    def broken():
        yield next(iter(Synthetic(4.0, 1, 9, 2)))
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        write_jsonl(broken(), tmp_path / "w.jsonl")
    assert list(tmp_path.iterdir()) == []


def workload(name, data_dir, **keys):
    """As the workbench makes it: its own keys are taken out, the rest goes to the class."""
    root = OmegaConf.create(
        {"seed": 3, "data": {"dir": str(data_dir)}, "workload": OmegaConf.load(CONF / f"{name}.yaml")}
    )
    config = OmegaConf.merge(root, {"workload": keys}).workload
    for key in ("tenants", "models", "concurrency"):
        assert config[key] is None
    arguments = OmegaConf.to_container(config, resolve=True)
    return instantiate({k: v for k, v in arguments.items() if k not in ("tenants", "models", "concurrency")})


@pytest.mark.parametrize("name", NAMES)
def test_every_yaml_makes_a_workload_that_runs(name, tmp_path):
    (tmp_path / "AzureLLMInferenceTrace_conv.csv").write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:00:00.0,5,6\n"
    )
    made = workload(name, tmp_path, program="rag")
    first = next(iter(made))
    assert first.request.program == "rag"
    assert first.output_tokens >= 1
    assert made.name
    assert made.hash_block >= 1


def test_the_group_is_complete():
    assert {"trace", "poisson", "gamma", "azure_like", "w1", "w2", "w3"} <= set(NAMES)


@pytest.mark.parametrize(("name", "trace"), [("w1", "W1"), ("w3", "W3"), ("azure_like", "azure_conv")])
def test_generators_have_the_statistics_of_the_traces_they_imitate(data_dir, name, trace):
    made, real = list(workload(name, data_dir)), list(Trace(trace, data_dir=data_dir))
    assert len(made) == len(real)
    assert made[-1].request.arrival == pytest.approx(real[-1].request.arrival, rel=0.06)
    for value in (lambda i: i.request.tokens, lambda i: i.output_tokens):
        a, b = (np.array([value(i) for i in items]) for items in (made, real))
        assert a.mean() == pytest.approx(b.mean(), rel=0.05)
        assert np.quantile(a, [0.25, 0.5, 0.9]) == pytest.approx(np.quantile(b, [0.25, 0.5, 0.9]), rel=0.12)

"""What services cost: from constants, from a profile, and from what they read where neither is given."""

from __future__ import annotations

from typing import Any

import pytest

from airi_sim.core.errors import BadInput
from airi_sim.core.types import Call, Job, Plan, Request
from airi_sim.hardware.choose import cost_model
from airi_sim.hardware.cost import PhysicsCost
from airi_sim.hardware.deployment import Deployment
from airi_sim.hardware.fit import fit_service, profile_from_samples
from airi_sim.hardware.fitted import service_from
from airi_sim.hardware.service import SERVICES, ServiceCost
from tests.hardware.parts import load


def plan(*jobs: tuple[int, int], shared: int = 0) -> Plan:
    """A plan of jobs of (tokens, items)."""
    made = [Job(Request(i, 0.0, t), Call(tokens=t, items=n), 0, 0.0) for i, (t, n) in enumerate(jobs)]
    total = sum(tokens for tokens, _ in jobs)
    return Plan(0, 0.0, [(job, job.tokens) for job in made], made, prefill_tokens=total, shared=shared)


def seconds(pool: Deployment, *jobs: tuple[int, int], shared: int = 0) -> float:
    return cost_model(pool).affine(plan(*jobs, shared=shared)).first


def pool(kind: str, device: str | None = "cpu", model: str = "tiny", **service: Any) -> Deployment:
    spec = load("model", model) if SERVICES[kind].model else None
    return Deployment(
        "p", kind, spec, load("accelerator", device) if device else None, precision="fp32", service=service
    )


CONSTANTS = {"constant": 0.5, "per_token": 0.01, "per_item": 0.1, "per_cached": 0.001}


@pytest.mark.parametrize("kind", sorted(SERVICES))
def test_constants_count_jobs_or_the_items_they_have(kind: str) -> None:
    items = 7 if SERVICES[kind].many else 2
    assert seconds(pool(kind, None, **CONSTANTS), (20, 4), (10, 3), shared=5) == pytest.approx(
        0.5 + 0.3 + 0.1 * items + 0.005
    )


@pytest.mark.parametrize("kind", sorted(SERVICES))
def test_a_fit_finds_the_constants_again(kind: str) -> None:
    cached = CONSTANTS if kind == "features" else {**CONSTANTS, "per_cached": 0.0}
    truth = ServiceCost(**cached, many=SERVICES[kind].many)
    shapes = [((t, n), (t + 9, 2)) for t in (1, 30, 200) for n in (1, 6, 12)] + [((5, 1),), ((90, 3),)]
    plans = [plan(*jobs, shared=i % 4 * (kind == "features")) for i, jobs in enumerate(shapes)]
    samples = [(each, truth.affine(each).first) for each in plans]
    assert fit_service(samples, kind) == pytest.approx({k: v for k, v in cached.items() if v}, rel=1e-4)
    fitted = service_from(profile_from_samples({kind: samples}, device="d", model="m", precision="fp32"), kind)
    for each, took in samples:
        assert fitted.affine(each).first == pytest.approx(took, rel=1e-4)


def test_an_inverted_file_reads_its_centres_and_some_lists() -> None:
    flat, ivf = (
        pool("search", vectors=40_000, width=64),
        pool("search", vectors=40_000, width=64, index="ivf", nprobe=5),
    )
    read = lambda one: seconds(one, (1, 1), (1, 1)) - seconds(one, (1, 1))  # noqa: E731
    assert read(flat) / read(ivf) == pytest.approx(40_000 / (200 + 5 * 200))
    whole = pool("search", vectors=40_000, width=64, index="ivf", lists=200, nprobe=200)
    assert read(whole) == pytest.approx(read(flat) * (1 + 200 / 40_000))
    assert seconds(whole, (1, 1)) > seconds(flat, (1, 1))
    with pytest.raises(BadInput, match="vectors and width"):
        cost_model(pool("search"))


@pytest.mark.parametrize("kind", ["embed", "rerank", "classify"])
def test_what_reads_texts_costs_a_prefill(kind: str) -> None:
    assert isinstance(cost_model(pool(kind)), PhysicsCost)
    assert 0 < seconds(pool(kind), (10, 1)) < seconds(pool(kind), (400, 4)) < seconds(pool(kind), (400, 4), (400, 4))


def test_images_cost_what_their_patches_do() -> None:
    vision = pool("vision", model="tiny-vlm")
    one = seconds(vision, (64, 1))
    assert seconds(vision, (128, 2)) == pytest.approx(seconds(vision, (64, 1), (64, 1)))
    assert seconds(vision, (128, 1)) > seconds(vision, (128, 2)) > one  # attention of one image sees all of it
    model, device = load("model", "tiny-vlm"), load("accelerator", "cpu")
    extra = seconds(vision, (640, 10)) - seconds(vision, (320, 5))
    assert extra == pytest.approx(5 * model.vision.flops(64) / (device.peak("fp32") * device.e_c))
    with pytest.raises(BadInput, match="needs a model with a vision tower"):
        cost_model(pool("vision"))


def test_look_ups_cost_more_for_what_is_not_in_the_cache() -> None:
    features = pool("features", "h100-sxm")
    assert seconds(features, (8, 1)) > seconds(features, (0, 1), shared=8) > 0
    assert seconds(features, (8, 1)) == seconds(pool("features"), (8, 1))

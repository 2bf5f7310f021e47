"""The closed forms against figures of the literature, hand-solved cases, and each other."""

from __future__ import annotations

import json
import os
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from airi_sim.workbench.theory import forms
from airi_sim.workbench.theory.sizes import constant, erlang, exponential, hyper

SIZES = {"MM1": exponential(), "MD1": constant(), "MH2c4": hyper(4), "ME4": erlang(4)}


@pytest.fixture(scope="module")
def reference() -> Any:
    file = Path(os.environ.get("AIRI_DATA", "data")) / "theory/queueing_reference.json"
    if not file.exists():
        pytest.skip(f"{file.name} is not in data.dir")
    return json.loads(file.read_text())


class TestReference:
    """Figures worked out independently; data that may be absent."""

    def test_waits(self, reference: Any) -> None:
        for name, waits in reference["mg1_fcfs_Wq"].items():
            for load, wait in waits.items():
                assert forms.mg1_wait(float(load), SIZES[name]) == pytest.approx(wait, rel=1e-9)
        for t, share in reference["md1_cdf_rho0.8"].items():
            assert forms.md1_wait_cdf(0.8, float(t)) == pytest.approx(share, abs=1e-6)

    @pytest.mark.parametrize(("law", "load"), [("exp", 0.5), ("exp", 0.8), ("exp", 0.9), ("H2c4_", 0.8)])
    def test_orders_by_size(self, reference: Any, law: str, load: float) -> None:
        size = exponential() if law == "exp" else hyper(4)
        expected = reference["mean_T_size_based"][f"{law}{load}"]
        found = {
            "PS": forms.ps_time(load, 1.0), "SRPT": forms.srpt_time(load, size), "PSJF": forms.psjf_time(load, size),
            "SJF": forms.sjf_time(load, size), "LAS": forms.las_time(load, size),
        }  # fmt: skip
        assert {name: found[name] for name in found} == pytest.approx(
            {name: expected[name] for name in found}, abs=2e-4
        )

    def test_several_servers(self, reference: Any) -> None:
        for key, share in reference["erlangB"].items():
            servers, offered = key.split(",")
            assert forms.erlang_b(int(servers), float(offered)) == pytest.approx(share, abs=1e-6)
            assert forms.erlang_c(int(servers), float(offered)) == pytest.approx(reference["erlangC"][key], abs=1e-6)
        for key, (lost, time) in reference["mmck"].items():
            offered, servers, room = key.split(",")
            assert forms.mmck(float(offered), int(servers), int(room)) == pytest.approx((lost, time), abs=2e-6)

    def test_routers(self, reference: Any) -> None:
        for load, time in reference["sq2_T"].items():
            assert forms.choices_time(float(load), 2) == pytest.approx(time, abs=1e-4)
        for n, times in reference["rr_T"].items():
            for load, time in times.items():
                assert forms.round_robin_time(int(n), float(load)) == pytest.approx(time, abs=1e-4)
        for load, time in reference["jsq2_T"].items():
            assert forms.shortest_of_two_time(float(load)) == pytest.approx(time, rel=1e-4)

    def test_networks_and_batches(self, reference: Any) -> None:
        for load, time in reference["fork_join2_T"].items():
            assert forms.fork_join_time(float(load)) == pytest.approx(time)
        for users, rate in reference["mva_Z10_D1_X"].items():
            assert forms.mva(int(users), 10.0, [1.0])[0] == pytest.approx(rate, abs=1e-5)
        for load, time in reference["dyn_batch_alpha1_tau2_T"].items():
            found = forms.batch_time(float(load), lambda b: b + 2.0, 1 << 30, 600)
            assert found == pytest.approx(time, abs=2e-3 if load == "0.9" else 1e-4)
        for cap, times in reference["mdb1_T"].items():
            for load, time in times.items():
                found = forms.batch_time(float(load) * int(cap), lambda _: 1.0, int(cap), 400)
                assert found == pytest.approx(time, abs=2e-4)

    def test_passes(self, reference: Any) -> None:
        for rate, expected in reference["contbatch_tau10ms_alpha0.1ms_L200"].items():
            assert forms.lockstep_time(float(rate), 200, 0.01, 1e-4) == pytest.approx(expected["T"], abs=1e-4)


class TestAgainstEachOther:
    """Special cases in which two forms must agree."""

    def test_one_server_of_many(self) -> None:
        assert forms.mmc_wait(1, 0.8) == pytest.approx(forms.mg1_wait(0.8, exponential()))
        assert forms.mdc_wait(1, 0.8) == pytest.approx(forms.mg1_wait(0.8, constant()), abs=1e-6)
        assert forms.round_robin_time(1, 0.8) == pytest.approx(5.0)

    def test_one_class_of_priorities(self) -> None:
        assert forms.priority_waits([0.8], [2.0], [1.0]) == pytest.approx([4.0])
        assert forms.preemptive_times([0.8]) == pytest.approx([5.0])

    def test_priorities_of_the_literature(self) -> None:
        assert forms.priority_waits([0.2, 0.3, 0.3], [2.0] * 3, [1.0] * 3) == pytest.approx([1, 2, 8])
        assert forms.preemptive_times([0.2, 0.3, 0.3]) == pytest.approx([1.25, 2.5, 10])

    def test_waits_of_classes_keep_the_conservation_law(self) -> None:
        rates, means, seconds = [0.3, 0.2], [0.5, 2.0], [0.5, 8.0]
        waits = forms.priority_waits(rates, seconds, means)
        weighted = sum(r * m * w for r, m, w in zip(rates, means, waits, strict=True))
        assert weighted == pytest.approx(forms.conserved(rates, seconds, means))

    def test_batches_of_one_are_md1(self) -> None:
        assert forms.batch_time(0.8, lambda _: 1.0, 1, 400) == pytest.approx(3.0, abs=1e-6)

    def test_the_batch_bound_holds(self) -> None:
        for load in (0.1, 0.5, 0.7):
            assert forms.batch_time(load, lambda b: b + 2.0, 1 << 30, 400) < forms.batch_bound(load, 1.0, 2.0)

    def test_the_law_of_passes_has_its_mean(self) -> None:
        law = forms.lockstep_law(20.0, 200, 0.01, 1e-4, 2000)
        assert law.sum() == pytest.approx(1)
        assert law @ np.arange(2001) == pytest.approx(20.0 * forms.lockstep_time(20.0, 200, 0.01, 1e-4))

    def test_a_cap_that_nobody_meets_changes_nothing(self) -> None:
        time, _ = forms.capped_lockstep(20.0, 200, 0.01, 1e-4, 3000)
        assert time == pytest.approx(forms.lockstep_time(20.0, 200, 0.01, 1e-4), rel=1e-6)

    def test_many_choices_of_many_servers(self) -> None:
        assert forms.choices_time_of(10**9, 0.9, 2) == pytest.approx(forms.choices_time(0.9, 2))
        assert forms.choices_time_of(100, 0.9, 2) > forms.choices_time(0.9, 2)

    def test_lru_of_all_but_one_item(self) -> None:
        popularity = np.array([0.5, 0.3, 0.2])
        first = (popularity**2).sum()
        assert forms.lru_hit_rate(popularity, 1) == pytest.approx(first)
        assert forms.che_hit_rate(forms.zipf(10_000, 0.8), 1000) == pytest.approx(0.43666, abs=1e-5)

    def test_life_cycle_of_the_literature(self) -> None:
        size = exponential()
        assert forms.set_up_time(0.05, size, 30, 900) == pytest.approx(22.0526, abs=1e-4)
        assert forms.set_up_time(0.8, size, 10, 200) == pytest.approx(15)
        assert forms.breakdown_time(0.7, size, 0.01, 10) == pytest.approx(7.8261, abs=1e-4)
        assert forms.attempts(0.1, 3) == pytest.approx((1.111, 0.9999))

    def test_erlang_a_without_impatience_is_erlang_c(self) -> None:
        assert forms.erlang_a(6.4, 8, 1e9)[1] == pytest.approx(forms.mmc_wait(8, 6.4), rel=1e-6)

    def test_sizes_have_the_moments_they_say(self) -> None:
        x = np.linspace(0, 200, 2_000_001)
        step = x[1] - x[0]
        for size in (exponential(), erlang(4), hyper(4)):
            assert float(size.density(x).sum() * step) == pytest.approx(1, abs=1e-3)
            assert float((2 * x * size.tail(x)).sum() * step) == pytest.approx(size.second, rel=1e-4)
            assert size.draw(np.random.default_rng(0), 200_000).mean() == pytest.approx(1, rel=0.02)
        assert float(erlang(2).tail(1.0)) == pytest.approx(exp(-2) * 3)

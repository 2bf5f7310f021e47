"""The torch backend beside its own matrix products and a plain loop: exactness is asserted, the split is printed.

`airi bench bench.cases=backend` measures the same at full size.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airi_sim.core.errors import BadInput
from airi_sim.workbench import efficiency as bench
from airi_sim.workbench.config import load_config, plain
from airi_sim.workbench.verbs.bench import command

torch = pytest.importorskip("torch")
from real_backend.backend import TorchBackend  # noqa: E402
from real_backend.efficiency import FIGURES, decodes, record, turn  # noqa: E402
from tests.real_backend.world import LLAMA, POOL, QWEN2, Ticks  # noqa: E402

pytestmark = [pytest.mark.real, pytest.mark.benchmark]
SMALL = (
    "model=tiny", "workload.n=6", "workload.input.mean=12", "workload.output.mean=6", "server.max_num_seqs=4",
    "server.kv_blocks=64", "bench.contexts=[8,33]", "bench.repeat=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers and what it imports
        patch.setattr(bench, "TURNS", 2)
        return bench.measured(plain(load_config([*bench.DEFAULTS, *SMALL])))


def test_transformers_generates_the_same_tokens(found: dict[str, Any]) -> None:
    print(f"\n{bench.text_of(found)}")
    assert found["loop"]["output_tokens"] == 36 and found["loop"]["finished"] == 6
    if found["plain"] is None:
        pytest.skip("transformers is not installed")
    assert found["plain"]["alike"] == 6


def test_the_command_writes_its_tables_and_judges_no_speed(
    found: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only another text makes it fail: not a split in which everything is slow."""
    folder = tmp_path / "run"
    slow = [row | {"share_of_bound": 0.01} for row in found["splits"]]
    for alike, code in ((6, 0), (5, 1)):
        said = found | {"splits": slow, "plain": {"seconds": 0.001, "sequences": 6, "alike": alike}}
        monkeypatch.setattr(bench, "measured", lambda _, said=said: said)
        assert command(["bench.cases=backend", f"hydra.run.dir={folder}"]) == code
        assert json.loads((folder / "bench.json").read_text()) == said
        assert bench.markdown(slow) in (folder / "bench.md").read_text()
        checks = {check["name"]: check["passed"] for check in json.loads((folder / "checks.json").read_text())}
        assert checks == {"every request finished": True, "transformers generates the same tokens": not code}
    assert "tokens/s" in capsys.readouterr().out


@pytest.fixture
def make() -> Any:
    made: list[TorchBackend] = []

    def backend(**options: Any) -> TorchBackend:
        made.append(TorchBackend(**{"device": "cpu", "cocalibrate": False} | options))
        return made[-1]

    yield backend
    for each in made:
        each.close()


def test_every_part_of_a_pass_is_in_its_split(make: Callable[..., TorchBackend]) -> None:
    """By a clock of one second a mark: each part a second a call, and the parts are the pass."""
    efficiency = make(timer=Ticks()).efficiency(POOL)
    found = efficiency.split(9, 1)
    assert set(FIGURES) < set(found)
    assert found["gemm"] == 4 * LLAMA.layers + 1
    assert found["attention"] == found["store"] == LLAMA.layers
    assert found["gather"] == LLAMA.layers + 1  # and the embeddings
    assert found["pass"] == 3


class Quiet:
    """A stopwatch that nobody reads."""

    def lap(self) -> None:
        pass


@pytest.mark.parametrize("spec", [LLAMA, QWEN2], ids=lambda spec: spec.name)
def test_parts_add_up_and_are_what_the_pass_computed(make: Callable[..., TorchBackend], spec: Any) -> None:
    """The calls that are timed alone give the tensors that they gave in the pass."""
    backend = make()
    efficiency = backend.efficiency(replace(POOL, model=spec))
    runner = backend.library.runner(efficiency.deployment, 32)
    segments = decodes(runner, 4, 21, seed=0)
    calls = record(runner, efficiency.clock, segments, keep=True)
    assert len(calls.kept["gemm"]) == 4 * spec.layers + 1 and len(calls.kept["attention"]) == spec.layers
    with torch.inference_mode():
        logits = calls.kept["gemm"][-1]()
    assert list(runner.run(segments, Quiet()).values()) == logits.argmax(-1).tolist()
    one = turn(runner, efficiency.clock, segments, calls)
    assert sum(one.parts.values()) == pytest.approx(one.split.seconds)
    assert one.gemm_alone > 0 and one.attention_alone > 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("bench.cases=[backend,W1]", "run it alone"),
        ("backend=sim", "backend that does"),
        ("bench.contexts=[0]", "whole numbers from 1"),
    ],
)
def test_what_it_cannot_measure_is_refused(override: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        command(["bench.cases=backend", *SMALL, override])

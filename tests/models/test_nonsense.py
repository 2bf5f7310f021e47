"""Configs with one value of them replaced by nonsense: a usable model comes of it, or one sentence."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from airi_sim.core.errors import BadInput
from airi_sim.models.spec import ModelSpec
from airi_sim.workbench.paths import choice

VALUES = (None, True, -1, 0, 1, 1.5, -2.5, 10**30, math.nan, math.inf, "x", "3", [], ["a"], {}, {"a": 1})
MODELS = ("llama-3.1-8b", "deepseek-v3", "gemma-4-26b-a4b", "gpt-oss-20b", "llama-4-scout", "qwen3-vl-8b")


def keys(config: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in config.items():
        yield (*above, key)
        if isinstance(value, Mapping):
            yield from keys(value, (*above, key))


def changed(config: Mapping[str, Any], key: tuple[str, ...], value: Any) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(config))
    inner = copy
    for part in key[:-1]:
        inner = inner[part]
    inner[key[-1]] = value
    return copy


def usable(spec: ModelSpec) -> bool:
    figures = [spec.parameters, spec.active_parameters, spec.weight_bytes(spec.precision), spec.flops_per_token(100)]
    figures += [spec.kv_bytes(100), spec.max_len, spec.rope_theta, hash(spec) and 1]
    if spec.vision:
        figures += [spec.vision.tokens(100, 100), spec.vision.flops(4)]
    return all(figure > 0 and math.isfinite(figure) for figure in figures)


@pytest.mark.parametrize("name", MODELS)
def test_one_nonsensical_value_makes_a_usable_model_or_one_sentence(name):
    config = choice("model", name)["config"]
    refused = []
    for key in keys(config):
        for value in VALUES:
            try:
                spec = ModelSpec.from_config(changed(config, key, value))
            except BadInput as error:
                refused.append(str(error))
            else:
                assert usable(spec), (key, value)
    assert len(refused) > 50
    assert not any("\n" in sentence for sentence in refused)

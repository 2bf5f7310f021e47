"""Keys of a Hugging Face config.json under the names most configs give them."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from airi_sim.core.errors import BadInput

SPELLINGS = {
    "hidden_size": ("n_embd", "d_model"),
    "num_hidden_layers": ("n_layer", "num_layers", "n_layers"),
    "num_attention_heads": ("n_head", "n_heads"),
    "num_key_value_heads": ("num_kv_heads", "multi_query_group_num"),
    "intermediate_size": ("n_inner", "ffn_dim", "ffn_hidden_size"),
    "max_position_embeddings": ("n_positions", "seq_length", "max_seq_len", "n_ctx"),
    "vocab_size": ("padded_vocab_size",),
    "head_dim": ("kv_channels", "attention_head_dim"),
}
"""Other names of a key, in the order in which they are tried."""


def spelled(text: Mapping[str, Any]) -> dict[str, Any]:
    """The same config with the usual name added where only another one is there."""
    found = dict(text)
    for name, others in SPELLINGS.items():
        if found.get(name) is None:
            found[name] = next((found[other] for other in others if found.get(other) is not None), None)
    return found


def count(text: Mapping[str, Any], key: str) -> int:
    """A whole number of at least 1; BadInput says which key is missing or unusable."""
    value = text.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadInput(
            f"the model config has no usable '{key}' ({value!r}): it must be a whole number of at least 1, "
            "as in a Hugging Face config.json."
        )
    return value


def number(text: Mapping[str, Any], *keys: str) -> int:
    """The first of these keys that is there and not 0; else 0. BadInput if that is no whole number from 0."""
    key = next((key for key in keys if text.get(key)), None)
    value = text[key] if key else 0
    usable = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    if not usable or value < 0 or value != int(value):
        raise BadInput(f"the model config has no usable '{key}' ({value!r}): it must be a whole number from 0.")
    return int(value)


def above_0(value: Any, key: str) -> float:
    """A number; BadInput unless it is greater than 0."""
    number = float(value)
    if not (number > 0 and isfinite(number)):
        raise BadInput(f"the model config has no usable '{key}' ({value!r}): it must be a number greater than 0.")
    return number


def kind_of(text: Mapping[str, Any]) -> str:
    """The `model_type`."""
    return str(text.get("model_type", "llama"))

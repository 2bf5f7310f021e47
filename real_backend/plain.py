"""The loop everybody writes first: `generate` of transformers, request by request. What a runtime is compared with."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from airi_sim.models.spec import ModelSpec
from real_backend.clock import Clock
from real_backend.sequences import Sequence

DENSE = ("llama", "qwen2", "qwen3")
"""Families whose config of transformers follows from the spec."""


class Plain(NamedTuple):
    """What the loop took, and what it generated: a list a request."""

    seconds: float
    texts: list[list[int]]


def plain_model(spec: ModelSpec, tensors: Mapping[str, Tensor], device: torch.device) -> Any:
    """The same model in transformers, with the same weights; None where it is not installed, or cannot be told."""
    try:
        import transformers
    except ImportError:
        return None
    if spec.family not in DENSE or spec.experts:
        return None
    config = transformers.AutoConfig.for_model(
        spec.family,
        hidden_size=spec.hidden,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.kv_heads,
        head_dim=spec.head_dim,
        intermediate_size=spec.ffn,
        vocab_size=spec.vocab,
        max_position_embeddings=spec.max_len,
        rms_norm_eps=spec.rms_eps,
        tie_word_embeddings=spec.tied,
        attention_bias=spec.out_bias,
        rope_parameters={"rope_type": "default", "rope_theta": spec.rope_theta},
        dtype=next(iter(tensors.values())).dtype,
    )
    model = transformers.AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    model.load_state_dict(dict(tensors), strict=not spec.tied)
    return model.to(device).eval()


@torch.inference_mode()
def generate(model: Any, sequences: Iterable[Sequence], clock: Clock, device: torch.device) -> Plain:
    """Each prompt alone with a KV cache, greedily, as many tokens as its sequence has."""
    texts, seconds = [], 0.0
    for sequence in sequences:
        prompt = torch.tensor([sequence.tokens[: sequence.prompt].tolist()], device=device)
        wanted = len(sequence.tokens) - sequence.prompt
        first = clock.mark()
        found = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, use_cache=True, max_new_tokens=wanted,
            min_new_tokens=wanted, eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
        seconds += clock.seconds(first, clock.mark())
        texts.append(found[0, sequence.prompt :].tolist())
    return Plain(seconds, texts)


def compared(
    spec: ModelSpec, tensors: Mapping[str, Tensor], sequences: list[Sequence], clock: Clock, device: torch.device
) -> dict[str, float] | None:
    """`seconds` of the loop over finished `sequences`, and how many it continued `alike`; None without the model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = plain_model(spec, tensors, device)
        if model is None:
            return None
        generate(model, sequences[:1], clock, device)  # its first call loads what later ones have
        found = generate(model, sequences, clock, device)
    pairs = zip(sequences, found.texts, strict=True)
    alike = sum(sequence.tokens[sequence.prompt :].tolist() == text for sequence, text in pairs)
    return {"seconds": found.seconds, "sequences": len(sequences), "alike": alike}

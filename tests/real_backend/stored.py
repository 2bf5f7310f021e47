"""A writer of safetensors files, independent of the reader."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch


def save(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a safetensors file by its format."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, tensor in tensors.items():
        raw = tensor.contiguous().view(torch.uint8).numpy().tobytes()
        kind = {torch.float32: "F32", torch.bfloat16: "BF16"}[tensor.dtype]
        entry = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        header[name] = entry  # type: ignore[assignment]
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)

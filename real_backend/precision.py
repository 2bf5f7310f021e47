"""Whether a device is good at a precision, found by trying it."""

from __future__ import annotations

from time import thread_time

import torch

ROWS, INNER, OUTER = 64, 512, 1024
TRIALS = 5
CLEARLY = 1.2


def doubts(device: torch.device, dtype: torch.dtype) -> tuple[str, ...]:
    """A sentence if products of `dtype` take this CPU clearly longer than those of fp32: it emulates them then."""
    if device.type != "cpu" or dtype == torch.float32:
        return ()
    ratio = product_seconds(dtype) / product_seconds(torch.float32)
    if ratio < CLEARLY:
        return ()
    name = str(dtype).removeprefix("torch.")
    return (
        f"this CPU takes {ratio:.1f} times as long for a product in {name} as in float32: "
        "backend.precision=fp32 is faster.",
    )


@torch.inference_mode()
def product_seconds(dtype: torch.dtype) -> float:
    """Thread seconds of one product on the CPU, the least of a few."""
    x, weight = torch.ones(ROWS, INNER, dtype=dtype), torch.ones(OUTER, INNER, dtype=dtype)
    found = []
    for _ in range(TRIALS):
        start = thread_time()
        torch.nn.functional.linear(x, weight)
        found.append(thread_time() - start)
    return min(found)

"""Types and ranges of the keys, one line each. Groups check the rest in their constructors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from airi_sim.core.errors import BadInput

Test = Callable[[Any], bool]


def _whole(least: int) -> Test:
    return lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= least


def _number(v: Any) -> bool:
    return isinstance(v, int | float) and not isinstance(v, bool) and v == v


def _flag(v: Any) -> bool:
    return isinstance(v, bool)


KEYS: dict[str, tuple[Test, str]] = {
    "seed": (_whole(0), "a whole number from 0"),
    "pool.replicas": (_whole(1), "a whole number from 1"),
    "pool.tp": (_whole(1), "a whole number from 1"),
    "pool.pp": (lambda v: v == 1, "1 (pipeline stages are not modelled yet)"),
    "pool.role": (lambda v: v == "both", "'both' (separate prefill and decode pools are not modelled yet)"),
    "server.max_num_seqs": (_whole(1), "a whole number from 1"),
    "server.max_num_batched_tokens": (_whole(1), "a whole number from 1"),
    "server.block_size": (_whole(1), "a whole number from 1"),
    "server.kv_blocks": (lambda v: v is None or _whole(1)(v), "a whole number from 1, or null"),
    "server.max_model_len": (lambda v: v is None or _whole(2)(v), "a whole number from 2, or null"),
    "server.gpu_memory_utilization": (lambda v: _number(v) and 0 < v <= 1, "a number above 0, at most 1"),
    "server.prefix_caching": (_flag, "true or false"),
    "server.chunked_prefill": (_flag, "true or false"),
    "engine.fast_forward": (_flag, "true or false"),
    "view.period_s": (lambda v: _number(v) and v >= 0, "seconds, 0 or more"),
    "results.tables": (_flag, "true or false"),
    "results.report": (_flag, "true or false"),
    "results.timeline": (_flag, "true or false"),
    "calibrate.samples": (_whole(1), "a whole number from 1"),
    "calibrate.seconds": (lambda v: _number(v) and v > 0, "seconds above 0"),
    "compare.repeat": (_flag, "true or false"),
    "workload.concurrency": (lambda v: v is None or _whole(1)(v), "a whole number from 1, or null"),
    **{
        f"slo.{name}": (lambda v: v is None or (_number(v) and v > 0), "seconds above 0, or null")
        for name in ("ttft_s", "tpot_s", "e2e_s")
    },
}


def check(config: DictConfig) -> None:
    """BadInput for the first key whose value is of the wrong type or out of range."""
    for key, (test, wanted) in KEYS.items():
        value = OmegaConf.select(config, key)
        if not test(value):
            raise BadInput(f"{key}={value!r} is not possible: it must be {wanted}.")
    check_server(OmegaConf.to_container(config.server, resolve=True))  # type: ignore[arg-type]


def check_server(server: dict[str, Any]) -> None:
    """What must hold between the limits of a server."""
    if server["max_num_seqs"] > server["max_num_batched_tokens"]:
        raise BadInput(
            f"server.max_num_seqs={server['max_num_seqs']} is more than server.max_num_batched_tokens="
            f"{server['max_num_batched_tokens']}: a pass could not hold one token of each; lower it or raise the other."
        )

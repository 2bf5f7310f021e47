"""Types and ranges of the keys, one line each. What a group instantiates is checked against its constructor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from itertools import pairwise
from math import inf
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from airi_sim.core.errors import BadInput
from airi_sim.models.spec import BYTES
from airi_sim.workbench.annotations import not_possible, unknown_key
from airi_sim.workbench.paths import conf_dir, options

Rule = tuple[Callable[[Any], bool], str]
MOST_REPLICAS = 100_000


def _whole(v: Any, least: int) -> bool:
    return isinstance(v, int) and not isinstance(v, bool) and v >= least


def _number(v: Any) -> bool:
    return isinstance(v, int | float) and not isinstance(v, bool) and -inf < v < inf


def _all(values: Any, test: Callable[[Any], bool]) -> bool:
    return isinstance(values, list | ListConfig) and len(values) > 0 and all(test(v) for v in values)


def _intensity(v: Any) -> bool:
    """One number, or steps in time."""
    if _number(v):
        return bool(v >= 0)
    steps = _all(v, lambda step: _all(step, lambda x: _number(x) and x >= 0) and len(step) == 2)
    return steps and v[0][0] == 0 and all(a[0] < b[0] for a, b in pairwise(v))


def _bytes(v: Any) -> bool:
    """One number, or one for each device."""
    each = list(v.values()) if isinstance(v, Mapping | DictConfig) else [v]
    return bool(each) and all(_number(x) and x > 0 for x in each)


def or_null(rule: Rule) -> Rule:
    """The same rule for a key that may be left out."""
    test, wanted = rule
    return lambda v: v is None or test(v), f"{wanted}, or null"


FLAG: Rule = (lambda v: isinstance(v, bool), "true or false")
FROM_0: Rule = (lambda v: _whole(v, 0), "a whole number from 0")
FROM_1: Rule = (lambda v: _whole(v, 1), "a whole number from 1")
FROM_2: Rule = (lambda v: _whole(v, 2), "a whole number from 2")
TEXT: Rule = (lambda v: isinstance(v, str), "text")
POSITIVE: Rule = (lambda v: _number(v) and v > 0, "seconds above 0")
FOLDER: Rule = (lambda v: isinstance(v, str) and bool(v.strip()), "the folder of the run")
MAPPING: Rule = (lambda v: isinstance(v, Mapping | DictConfig), "a mapping {key: value}")
PRECISION: Rule = (lambda v: v in BYTES if isinstance(v, str) else False, f"one of {', '.join(sorted(BYTES))}")

ROLES = ("both", "prefill", "decode")
"""What a pool does with a job: all of it, its prompt, or what comes after it."""

BELOW = ("nvme", "store")
"""Where weights lie of which the host has no copy (hardware.storage)."""

POOL: dict[str, Rule] = {
    "kind": TEXT,
    "model": or_null((lambda v: isinstance(v, str) or _node(v), "a name of conf/model, or a mapping with a _target_")),
    "accelerator": or_null(
        (lambda v: isinstance(v, str) or _node(v), "a name of conf/accelerator, or a mapping with a _target_")
    ),
    "replicas": (lambda v: _whole(v, 1) and v <= MOST_REPLICAS, f"a whole number from 1 to {MOST_REPLICAS:,}"),
    "tp": FROM_1,
    "pp": (lambda v: _whole(v, 1) and v == 1, "1 (pipeline stages are not modelled yet)"),
    "role": (lambda v: v in ROLES, f"one of {', '.join(ROLES)}"),
    "device": or_null(
        (
            lambda v: isinstance(v, str) or _all(v, lambda x: isinstance(x, str)),
            "the name of a device, or a list of them",
        )
    ),
    "copies": or_null(FROM_1),
    "node": or_null((lambda v: isinstance(v, str) or _node(v), "a name of conf/node, or a mapping with a _target_")),
    "server": or_null(MAPPING),
    "policy": or_null(MAPPING),
    "service": or_null(MAPPING),
}
"""Keys of a pool."""

SERVER: dict[str, Rule] = {
    "max_num_seqs": FROM_1,
    "max_num_batched_tokens": FROM_1,
    "block_size": FROM_1,
    "kv_blocks": or_null(FROM_1),
    "max_model_len": or_null(FROM_2),
    "gpu_memory_utilization": (lambda v: _number(v) and 0 < v <= 1, "a number above 0, at most 1"),
    "prefix_caching": FLAG,
    "swap_bytes": (lambda v: _number(v) and v >= 0, "bytes, 0 or more"),
    "copy_on_write": FLAG,
    "chunked_prefill": FLAG,
    "speculation": or_null(MAPPING),
}
"""Keys of a server."""

SERVICE: dict[str, Rule] = {
    **dict.fromkeys(
        ("constant", "per_token", "per_item", "per_cached"), (lambda v: _number(v) and v >= 0, "seconds, 0 or more")
    ),
    **dict.fromkeys(("vectors", "width", "chunk_tokens", "keys", "labels"), FROM_1),
    **dict.fromkeys(("lists", "nprobe"), or_null(FROM_1)),
    "index": (lambda v: v in ("flat", "ivf"), "flat or ivf"),
    "skew": (lambda v: _number(v) and v >= 0, "a number from 0"),
    "cache_entries": FROM_0,
    "cache_ttl_s": or_null(POSITIVE),
}
"""Constants and dimensions of the service that a pool is."""

KEYS: dict[str, Rule] = {
    "seed": FROM_0,
    "precision": PRECISION,
    "data.dir": or_null(TEXT),
    "engine.fast_forward": FLAG,
    "view.period_s": (lambda v: _number(v) and v >= 0, "seconds, 0 or more"),
    "slo.ttft_s": or_null(POSITIVE),
    "slo.tpot_s": or_null(POSITIVE),
    "slo.e2e_s": or_null(POSITIVE),
    "transfer.together": FLAG,
    "memory.bytes": or_null((lambda v: _bytes(v), "bytes above 0, or {device: bytes}")),
    "memory.host_bytes": (lambda v: _number(v) and v >= 0, "bytes, 0 or more"),
    "memory.tier": (lambda v: v in BELOW if isinstance(v, str) else False, f"one of {', '.join(BELOW)}"),
    "memory.init_s": (lambda v: _number(v) and v >= 0, "seconds, 0 or more"),
    "transfer.layerwise": FLAG,
    "cost.pue": (lambda v: _number(v) and v >= 1, "a number from 1"),
    "cost.gco2_per_kwh": or_null((lambda v: _intensity(v), "a number from 0, or [[seconds, g/kWh], ...] from 0 s on")),
    "results.tables": FLAG,
    "results.report": FLAG,
    "results.timeline": FLAG,
    "results.checkpoint_s": or_null((lambda v: _number(v) and v >= 0, "seconds, 0 or more")),
    "compare.repeat": FLAG,
    "compare.profile": or_null(TEXT),
    "calibrate.samples": FROM_1,
    "calibrate.seconds": POSITIVE,
    "calibrate.path": or_null(TEXT),
    "calibrate.ops": or_null(
        (lambda v: isinstance(v, str) or _all(v, lambda x: isinstance(x, str)), "a path or paths")
    ),
    "calibrate.device": or_null(TEXT),
    "calibrate.table": FLAG,
    "hardware.strict": FLAG,
    "study.loads": (
        lambda v: _all(v, lambda x: _number(x) and x > 0) and len(set(v)) == len(v),
        "a list of numbers above 0, none of them twice",
    ),
    "study.seeds": (
        lambda v: _all(v, lambda x: _whole(x, 0)) and len(set(v)) == len(v),
        "a list of whole numbers from 0, none of them twice",
    ),
    "bench.cases": (
        lambda v: isinstance(v, str) or _all(v, lambda x: isinstance(x, str)),
        "the name of a set, or a list of cases",
    ),
    "bench.repeat": FROM_1,
    "bench.contexts": (lambda v: _all(v, lambda x: _whole(x, 1)), "a list of whole numbers from 1"),
    "bench.yardstick": or_null(TEXT),
    "bench.dynamo": or_null(TEXT),
    "workload.concurrency": or_null(FROM_1),
    "workload.models": or_null(
        (lambda v: (_number(v) and v >= 0) or MAPPING[0](v), "{name: weight}, or a Zipf exponent")
    ),
}
"""Keys outside pools and servers."""

NAMED: dict[str, str] = {
    "pools": "a mapping such as {model: llama-3.1-8b, replicas: 2}",
    "services": "a mapping such as {kind: embed, replicas: 1}",
    "compare.policies": "a mapping such as {router: p2c, queue: vtc}",
    "study.policies": "a mapping such as {router: p2c, queue: vtc}",
}
"""Mappings of named mappings, and what each must be. All but services may be null."""

OPEN = ("pools", "services", "hydra")
"""Sections in which one may name things."""


def check(config: DictConfig) -> None:
    """BadInput for the first section with an unknown key, or key whose value is of the wrong type or out of range."""
    values = OmegaConf.to_container(config, resolve=False)
    assert isinstance(values, dict)
    for name, section in defaults().items():
        if isinstance(section, Mapping) and name not in OPEN:
            check_section(name, values.get(name), section)
    for key, rule in KEYS.items():
        check_key(key, OmegaConf.select(config, key), rule)
    check_key("hydra.run.dir", config.hydra.run.dir, FOLDER)
    for key, wanted in NAMED.items():
        check_named(key, OmegaConf.select(config, key), wanted)
    check_rules("pool", OmegaConf.to_container(config.pool, resolve=True), POOL)
    check_server("server", OmegaConf.to_container(config.server, resolve=True))
    check_policies(values.get("policy"))
    for group in ("workload", "model", "accelerator", "serving", "backend"):
        if not isinstance(values.get(group), Mapping):
            raise not_possible(group, values.get(group), f"one of {', '.join(options(group))}")


@cache
def defaults() -> dict[str, Any]:
    """`conf/config.yaml` as it stands."""
    loaded = OmegaConf.to_container(OmegaConf.load(conf_dir() / "config.yaml"), resolve=False)
    assert isinstance(loaded, dict)
    return {str(name): value for name, value in loaded.items() if name not in ("defaults", "hydra")}


def check_key(key: str, value: Any, rule: Rule) -> None:
    """BadInput if the value breaks the rule."""
    test, wanted = rule
    if not test(value):
        raise not_possible(key, value, wanted)


def check_named(key: str, value: Any, wanted: str) -> None:
    """BadInput unless it is a mapping of mappings, or null where that means none."""
    check_key(key, value, MAPPING if key == "services" else or_null(MAPPING))
    for name, one in (value or {}).items():
        check_key(f"{key}.{name}", one, (MAPPING[0], wanted))


def check_section(name: str, section: Any, known: Mapping[str, Any]) -> None:
    """BadInput if it is no mapping, or has keys that nobody reads."""
    if not isinstance(section, Mapping):
        raise not_possible(name, section, f"a mapping with the keys {', '.join(known)}")
    for key in section:
        if key not in known:
            raise unknown_key(name, str(key), sorted(known))


def check_rules(key: str, values: Any, rules: Mapping[str, Rule]) -> None:
    """BadInput for the first key of a section that is unknown or whose value cannot be."""
    check_section(key, values, rules)
    for name, value in values.items():
        check_key(f"{key}.{name}", value, rules[name])


def check_server(key: str, server: Any) -> None:
    """The limits of a server, all of them there, and what must hold between them."""
    check_section(key, server, SERVER)
    for name, rule in SERVER.items():
        check_key(f"{key}.{name}", server.get(name), rule)
    seats, tokens = server["max_num_seqs"], server["max_num_batched_tokens"]
    if seats > tokens:
        raise BadInput(
            f"{key}.max_num_seqs={seats} is more than {key}.max_num_batched_tokens={tokens}: a pass could not hold one "
            "token of each; lower it or raise the other."
        )


def check_policies(policies: Any) -> None:
    """BadInput for a kind of policy that does not exist, or is left out."""
    kinds = {path.name: None for path in sorted((conf_dir() / "policy").iterdir()) if path.is_dir()}
    check_section("policy", policies, kinds)
    for kind in kinds:
        if kind not in policies:
            raise not_possible(f"policy.{kind}", None, f"one of {', '.join(options(f'policy/{kind}'))}")


def _node(value: Any) -> bool:
    return isinstance(value, Mapping) and "_target_" in value

"""Speculation from the config of a server, and what a measured run accepted for the simulation beside it."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from airi_sim.core.errors import BadInput
from airi_sim.hardware.deployment import Deployment
from airi_sim.hardware.speculation import METHODS, Speculation
from airi_sim.models.spec import ModelSpec
from airi_sim.workbench.objects import instantiate
from airi_sim.workbench.plugins import group_node
from airi_sim.workbench.schema import Rule, check_rules

ACCEPTANCE = "acceptance.json"
MOST_TOKENS = 32


def _rate(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


RULES: dict[str, Rule] = {
    "draft": (lambda v: isinstance(v, str | Mapping), "a name of conf/model, or a mapping with a _target_"),
    "tokens": (
        lambda v: isinstance(v, int) and not isinstance(v, bool) and 1 <= v <= MOST_TOKENS,
        f"a whole number from 1 to {MOST_TOKENS}",
    ),
    "acceptance": (lambda v: _rate(v) or isinstance(v, str | Mapping), f"a number from 0 to 1, or an {ACCEPTANCE}"),
    "method": (lambda v: v in METHODS, f"one of {', '.join(METHODS)}"),
    "temperature": (lambda v: isinstance(v, int | float) and not isinstance(v, bool) and v > 0, "a number above 0"),
}
"""Keys of server.speculation."""


def speculation_of(server: Mapping[str, Any], key: str, seed: int) -> Speculation | None:
    """What a server speculates with, None if it does not; BadInput for what cannot be."""
    given = server.get("speculation")
    if given is None:
        return None
    check_rules(f"{key}.speculation", given, RULES)
    if "draft" not in given:
        raise BadInput(f"{key}.speculation needs a draft model: add draft: NAME (airi run --help lists the models).")
    values = dict(given)
    draft = values.pop("draft")
    node = group_node("model", draft, seed) if isinstance(draft, str) else draft
    return Speculation(instantiate(node, f"{key}.speculation.draft"), **values)


def speculating(deployment: Deployment, speculation: Speculation | None, role: str) -> Deployment:
    """The deployment with its speculation; BadInput where the two do not go together. Services do without."""
    if speculation is None or deployment.kind != "generate" or deployment.model is None:
        return deployment
    name, model, draft = deployment.name, deployment.model, speculation.draft
    rows, limit = deployment.max_num_seqs * (speculation.tokens + 1), deployment.max_num_batched_tokens
    if draft.vocab != model.vocab:
        raise BadInput(
            f"pool '{name}' cannot speculate: '{draft.name}' knows {draft.vocab} tokens, '{model.name}' {model.vocab}; "
            "choose a draft model with the same vocabulary."
        )
    if rows > limit:
        raise BadInput(
            f"pool '{name}' checks {speculation.tokens} drafted tokens and one more of up to {deployment.max_num_seqs} "
            f"sequences in a pass, which max_num_batched_tokens={limit} does not hold: set it to {rows} or more, or "
            "lower max_num_seqs."
        )
    for other, present in (
        ("swap or copy KV blocks (swap_bytes, copy_on_write)", deployment.copies),
        (f"have the role {role}", role != "both"),
        ("share its devices with other pools (device)", deployment.devices),
    ):
        if present:
            raise BadInput(f"pool '{name}' cannot speculate and {other}: leave one of them out.")
    return replace(deployment, speculation=speculation)


def draft_model(speculation: Speculation | None) -> ModelSpec | None:
    """The model whose weights and KV need memory too."""
    return None if speculation is None else speculation.draft


def pin_acceptance(
    config: Mapping[str, Any], spans: Iterable[tuple[Any, ...]], folder: Path | None = None
) -> dict[str, Any]:
    """The config of a measured run, in which pools that speculate accept what they did there: `spans` are its rows of
    that table. With a `folder` that is written to a file there, so that the simulation can be run again."""
    pools = {name: pool for name, pool in (config["pools"] or {}).items() if _speculation(pool, config) is not None}
    if not pools:
        return dict(config)
    rows = sorted(spans, key=lambda row: str(row[0]))
    by_pool = {name: [*found] for name, found in groupby(rows, key=lambda row: str(row[0]).rpartition("/")[0])}
    for name, pool in pools.items():
        own = dict(_speculation(pool, config) or {})
        found = accepted_places(by_pool.get(name, []))
        known: Any = {"rate": mean_rate(found, own.get("tokens", Speculation.tokens)), "jobs": found}
        if folder is not None:
            path = folder / (ACCEPTANCE if len(pools) == 1 else f"{name}-{ACCEPTANCE}")
            path.write_text(json.dumps(known))
            known = str(path)
        server = {**(pool.get("server") or {}), "speculation": {**own, "acceptance": known}}
        pools[name] = {**pool, "server": server}
    return {**config, "pools": {**config["pools"], **pools}}


def _speculation(pool: Mapping[str, Any], config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return {**config["server"], **(pool.get("server") or {})}.get("speculation")


def accepted_places(spans: Iterable[tuple[Any, ...]]) -> dict[int, dict[int, int]]:
    """{job: {output tokens before a pass: drafted ones accepted by it}}, from rows of the spans table."""
    stays: dict[int, dict[tuple[Any, ...], Counter[int]]] = defaultdict(lambda: defaultdict(Counter))
    emitted: Counter[tuple[int, Any]] = Counter()
    for server, lane, job, first, last, joined_s, entry in spans:
        stay = (joined_s, server, lane)
        stays[job][stay].update(range(first, last))
        emitted[job, stay] += bool(entry)
    found: dict[int, dict[int, int]] = {}
    for job, own in stays.items():
        place, places = 0, {}
        for stay in sorted(own):
            place += emitted[job, stay]
            for tokens in [own[stay][at] for at in sorted(own[stay])]:
                places[place] = tokens - 1
                place += tokens
        found[job] = places
    return found


def mean_rate(found: Mapping[int, Mapping[int, int]], drafted: int) -> float:
    """Accepted tokens over those that were looked at: of a draft, up to the first refused one. The last pass of a job
    does not count, as its end may have cut it short."""
    counts = [n for places in found.values() for n in list(places.values())[:-1]]
    refused = sum(n < drafted for n in counts)
    return sum(counts) / (sum(counts) + refused) if counts else 0.0

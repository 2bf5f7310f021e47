"""What a prefix cache is worth on the conversations of Mooncake: by its size, its order of eviction, and the router.

    python -m experiments.mooncake
    python -m experiments.mooncake workload.limit=2000 'mooncake.sizes=[1e6,3e6]'

Two questions, after Qin et al., FAST 2025 (figures 9 and 5). How much of all prefix hits does one cache of so many
tokens get, if it is asked in the order of arrivals and nothing else matters? And how long until the first token on
eight prefill replicas with caches of their own, if requests go to anybody, to whoever has least to do, or to whoever
has most of their prefix? What is compared stands in conf/experiment/mooncake.yaml. The folder gets mooncake.csv,
mooncake.png and one run folder a router.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import Cache
from airi_sim.results import style
from airi_sim.results.text import percent, seconds
from airi_sim.runtime.prefix import PrefixCache
from airi_sim.workbench.build import build_workload
from airi_sim.workbench.comparison import with_policies
from airi_sim.workbench.config import load_config, plain
from airi_sim.workbench.execute import execute
from airi_sim.workbench.plugins import maker, policy_node
from experiments.parts import listed, numbers, start

Prompt = tuple[int, ...]


class Hits(NamedTuple):
    """What a cache of so many tokens got: the share of all prompt blocks, and of the hits that any cache could get."""

    cache: str
    tokens: float
    share: float
    of_maximum: float


class Routed(NamedTuple):
    """What a router made of the pool: seconds to the first token, and the share of prompt tokens that were cached."""

    router: str
    ttft_mean_s: float
    ttft_p50_s: float
    ttft_p99_s: float
    hit_rate: float


def replay(prompts: Iterable[Prompt], units: int, policy: Cache | None = None) -> int:
    """Blocks that were found, if prompts come one by one to a cache of `units` blocks. A prompt that is larger than
    the cache keeps what fits of its beginning."""
    cache, found = PrefixCache(1, policy), 0
    for prompt in prompts:
        hit = cache.match(prompt, len(prompt))
        found += hit
        cache.lock(prompt[:hit])
        missing = [unit for unit in prompt[hit:] if unit not in cache.references]
        over = len(cache.references) + len(missing) - units
        if over > 0 and cache.idle:
            cache.evict(min(over, len(cache.idle)))
        stop = min(len(prompt), hit + max(0, units - len(cache.references)))
        cache.release([*prompt[:hit], *cache.insert(prompt, hit, stop)])
    return found


def hit_shares(config: dict[str, Any], prompts: Sequence[Prompt], hash_block: int) -> list[Hits]:
    """Every cache order at every size."""
    blocks = sum(map(len, prompts))
    most = replay(prompts, blocks)
    if not most:
        raise BadInput("no two prompts of this workload begin alike: there is nothing to cache.")
    rows = []
    for name, chosen in config["mooncake"]["caches"].items():
        make = maker("cache", policy_node("cache", chosen, {}, config["seed"]))
        for tokens in config["mooncake"]["sizes"]:
            found = replay(prompts, int(tokens) // hash_block, make())
            rows.append(Hits(name, tokens, found / blocks, found / most))
    return [*rows, Hits("unlimited", float("inf"), most / blocks, 1.0)]


def routed_configs(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The run of each router; BadInput for lists of `mooncake` that cannot be."""
    numbers("mooncake.sizes", config["mooncake"]["sizes"])
    routers = listed("mooncake.routers", config["mooncake"]["routers"])
    return {router: with_policies(config, {"router": router}) for router in routers}


def route(configs: dict[str, dict[str, Any]], folder: Path) -> list[Routed]:
    """The same requests through the same pool, a router at a time."""
    rows = []
    for router, config in configs.items():
        print(f"routed by {router}", file=sys.stderr)
        summary = execute(config, folder / router)
        ttft = summary["ttft_s"]
        rows.append(Routed(router, ttft["mean"], ttft["p50"], ttft["p99"], summary["cache"]["hit_rate"]))
    return rows


def table(rows: Sequence[Hits | Routed]) -> str:
    """For the terminal."""
    lines = [
        f"{row.cache:18} {row.tokens / 1e6:6.0f}M tokens {percent(row.share):>8} of blocks {percent(row.of_maximum):>8}"
        " of the maximum"
        if isinstance(row, Hits)
        else f"{row.router:18} TTFT mean {seconds(row.ttft_mean_s):>8}  p50 {seconds(row.ttft_p50_s):>8}  p99 "
        f"{seconds(row.ttft_p99_s):>8}  cached {percent(row.hit_rate):>7}"
        for row in rows
    ]
    return "\n".join(lines)


def write(rows: Sequence[Hits | Routed], path: Path) -> None:
    """Both tables in one csv: what, where, figure by figure."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("what", "figure", "value"))
        for row in rows:
            name, *rest = row._fields
            at = f" at {row.tokens:g} tokens" if isinstance(row, Hits) else ""
            writer.writerows((f"{getattr(row, name)}{at}", figure, getattr(row, figure)) for figure in rest)


def draw(hits: Sequence[Hits], routed: Sequence[Routed], path: Path) -> None:
    """Left the share of the maximum over the size of the cache, right the mean time to first token by router."""
    made, (left, right) = style.figure(columns=2, height=3.2)
    made.set_facecolor("white")
    names = [name for name in dict.fromkeys(row.cache for row in hits) if name != "unlimited"]
    for name, colour in zip(names, style.SERIES, strict=False):
        rows = [row for row in hits if row.cache == name]
        left.plot([r.tokens / 1e6 for r in rows], [100 * r.of_maximum for r in rows], ".-", color=colour, label=name)
    left.set_xscale("log")
    left.minorticks_off()
    left.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    style.titled(left, "Prefix hits, share of the maximum (%)", "tokens of cache (millions)")
    left.legend(frameon=False, labelcolor="linecolor")
    right.barh([row.router for row in routed], [row.ttft_mean_s for row in routed], color=style.SOURCES["sim"])
    right.invert_yaxis()
    right.grid(visible=False, axis="y")
    right.grid(visible=True, axis="x", color=style.GRID)
    style.titled(right, "Time to first token, mean (s)")
    made.savefig(path, dpi=160)


def main(overrides: Sequence[str]) -> int:
    """Replay, route, print, write table and picture; returns the exit code (2: bad input)."""
    try:
        loaded = load_config(["experiment=mooncake", *overrides])
        config, folder = plain(loaded), Path(loaded.hydra.run.dir)
        configs = routed_configs(config)
        workload, _ = build_workload(config)
        hits = hit_shares(config, [item.request.prefix for item in workload], workload.hash_block)
        routed = route(configs, folder)
    except BadInput as error:
        print(f"mooncake: {error}", file=sys.stderr)
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    write([*hits, *routed], folder / "mooncake.csv")
    draw(hits, routed, folder / "mooncake.png")
    print(table([*hits, *routed]))
    print(f"table and picture: {folder / 'mooncake.csv'}, {folder / 'mooncake.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(start(main, __doc__))

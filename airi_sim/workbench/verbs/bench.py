"""airi bench: speed of the engine on named traces."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from statistics import median
from typing import Any

from airi_sim.core.errors import BadInput, unknown
from airi_sim.workbench.build import build
from airi_sim.workbench.config import load_config, plain, show_config
from airi_sim.workbench.execute import check_folder
from airi_sim.workbench.plugins import group_node
from airi_sim.workload.data import find

REPLICAS = {"W1": 1, "W2": 4, "W3": 1, "W1_10k_r64": 64}
"""Named traces and the replicas they are meant for."""
GENERATED: dict[str, tuple[str, dict[str, Any]]] = {
    "W1": ("w1", {}),
    "W2": ("w2", {}),
    "W3": ("w3", {}),
    "W1_10k_r64": ("w1", {"rate": 512.0}),
}
"""What stands in for a trace that is not in the data folder."""


def command(overrides: Sequence[str], show: bool = False) -> int:
    """Simulate each trace `bench.repeat` times with the policies of the config; medians, a table and bench.json."""
    config = load_config(overrides)
    if show:
        return show_config(config)
    values, folder = plain(config), Path(config.hydra.run.dir)
    check_folder(folder)
    rows = [measure(values, name) for name in values["bench"]["traces"]]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(rows, indent=1))
    (folder / "checks.json").write_text(json.dumps([check_of(row) for row in rows], indent=1))
    print(table(rows))
    print(f"table: {folder / 'bench.json'}")
    return 0 if all(row["finished"] == row["requests"] for row in rows) else 1


def measure(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """CPU seconds of the loop (median), and what was simulated in them."""
    prepared, source = prepare(config, name)
    runs = []
    for i in range(config["bench"]["repeat"]):
        print(f"{name}: run {i + 1} of {config['bench']['repeat']}", file=sys.stderr)
        world = build(prepared)
        items = list(world.workload)
        cpu = time.process_time()
        simulated = world.driver.run(iter(items))
        runs.append((time.process_time() - cpu, simulated, world))
    seconds = median([run[0] for run in runs])
    simulated, world = runs[0][1], runs[0][2]
    passes = sum(server.passes for server in world.runtime.servers)
    tokens = sum(row[9] for row in world.log.requests)
    return {
        "trace": name, "source": source, "replicas": len(world.runtime.servers), "requests": len(items),
        "finished": world.runtime.counts["finished"], "cpu_s": seconds, "requests_per_s": len(items) / seconds,
        "output_tokens_per_s": tokens / seconds, "passes_per_s": passes / seconds,
        "plans": len(world.log.plans), "times_real_time": simulated / seconds,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "decisions_hash": world.log.decisions_hash(),
    }  # fmt: skip


def prepare(config: Mapping[str, Any], name: str) -> tuple[dict[str, Any], str]:
    """The config with that trace and its replicas; the generator of the project where the file is absent."""
    copy = deepcopy(dict(config))
    if name not in REPLICAS:
        raise unknown("trace of bench.traces", name, REPLICAS)
    copy["pool"]["replicas"] = REPLICAS[name]
    tenants = copy["workload"].get("tenants")
    try:
        find(name, copy["data"]["dir"])
        source = "trace"
        copy["workload"] = {**group_node("workload", "trace", copy["seed"], copy["data"]["dir"]), "path": name}
    except BadInput:
        group, other = GENERATED[name]
        source = "generated"
        copy["workload"] = {**group_node("workload", group, copy["seed"], copy["data"]["dir"]), **other}
    copy["workload"]["tenants"] = tenants
    return copy, source


def check_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Speed is reported, never judged: what must hold is that every request finished."""
    return {
        "name": f"{row['trace']}: every request finished", "figure": row["finished"], "limit": row["requests"],
        "unit": "requests", "passed": row["finished"] == row["requests"], "detail": f"{row['cpu_s']:.3f} CPU s",
    }  # fmt: skip


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line a trace."""
    head = (
        f"{'trace':12} {'source':10} {'replicas':>8} {'requests':>9} {'CPU s':>8} {'requests/s':>11} {'tokens/s':>12} "
    )
    lines = [f"{head}{'passes/s':>11} {'x real time':>12} {'MB':>6}"]
    for row in rows:
        lines.append(
            f"{row['trace']:12} {row['source']:10} {row['replicas']:8,} {row['requests']:9,} {row['cpu_s']:8.3f} "
            f"{row['requests_per_s']:11,.0f} {row['output_tokens_per_s']:12,.0f} {row['passes_per_s']:11,.0f} "
            f"{row['times_real_time']:12,.0f} {row['peak_rss_mb']:6,.0f}"
        )
    return "\n".join(lines)

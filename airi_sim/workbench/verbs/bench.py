"""airi bench: speed of the engine on named traces, each run in a process of its own, beside others where there are."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from airi_sim.core.errors import BadInput
from airi_sim.workbench import efficiency
from airi_sim.workbench.cases import Case, chosen
from airi_sim.workbench.config import load_config, plain, show_config
from airi_sim.workbench.efficiency import asked
from airi_sim.workbench.folders import run_folder
from airi_sim.workbench.peers import peers_of

OWN = ("bench.", "hydra.run.dir=", "results.")
"""Overrides that are about the bench and not about what it runs."""
COLUMNS: dict[str, tuple[str, str]] = {
    "case": ("case", ""),
    "source": ("source", ""),
    "replicas": ("replicas", ",.0f"),
    "requests": ("requests", ",.0f"),
    "CPU s": ("cpu_s", ".3f"),
    "us/request": ("us_per_request", ".1f"),
    "requests/s": ("requests_per_s", ",.0f"),
    "tokens/s": ("output_tokens_per_s", ",.0f"),
    "passes/s": ("passes_per_s", ",.0f"),
    "command s": ("command_cpu_s", ".2f"),
    "peak MB": ("peak_rss_mb", ",.0f"),
    "yardstick s": ("yardstick_s", ".3f"),
    "x yardstick": ("over_yardstick", ".2f"),
    "dynamo s": ("dynamo_s", ".3f"),
    "dynamo x": ("dynamo_over", ".2f"),
}
"""Columns of the table: the key of a row, and how its figure is written. Those nobody has are left out."""


def command(overrides: Sequence[str], show: bool = False) -> int:
    """Run each case `bench.repeat` times; medians as a table, bench.json, bench.md and checks.json."""
    config = load_config(overrides)
    if asked(config.bench.cases):
        return efficiency.command(overrides, show)
    if show:
        return show_config(config)
    with run_folder(config, overrides) as folder:
        rows = measured(plain(config), overrides)
        folder.mkdir(parents=True, exist_ok=True)
        checks = [check for row in rows for check in checks_of(row)]
        (folder / "bench.json").write_text(json.dumps(rows, indent=1))
        (folder / "bench.md").write_text(markdown(rows))
        (folder / "checks.json").write_text(json.dumps(checks, indent=1))
    print(table(rows))
    print(f"table: {folder / 'bench.json'}")
    return 0 if all(check["passed"] for check in checks) else 1


def measured(values: Mapping[str, Any], overrides: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each case; all of them are checked before the first one runs."""
    mine = [word for word in overrides if not word.lstrip("+~").startswith(OWN)]
    cases = chosen(values["bench"]["cases"], values["data"]["dir"])
    configs = [plain(load_config([*case.overrides, *mine])) for case in cases]
    rows = []
    for case, one in zip(cases, configs, strict=True):
        with TemporaryDirectory(prefix="airi-bench-") as place:
            rows.append(measure(case, mine, one, values["bench"], Path(place)))
    return rows


def measure(
    case: Case, mine: list[str], config: Mapping[str, Any], bench: Mapping[str, Any], place: Path
) -> dict[str, Any]:
    """The medians of a case; whoever else runs it takes turns with us."""
    peers = peers_of(case, config, bench, place)
    repeat = 1 if case.trace.long else bench["repeat"]
    runs: list[dict[str, Any]] = []
    others: dict[str, list[float]] = {name: [] for name in peers}
    for i in range(repeat):
        runs.append(run_once([*case.overrides, *mine], place / "run"))
        for name, peer in peers.items():
            others[name].append(peer())
        took = ", ".join([f"{name} {times[-1]:.3f} s" for name, times in others.items()])
        ours = f"{runs[-1]['engine']['cpu_s']:.3f} s"
        print(f"{case.name}, {i + 1} of {repeat}: {ours}{took and f' ({took})'}", file=sys.stderr, flush=True)
    return row_of(case, runs, others)


def run_once(overrides: Sequence[str], folder: Path) -> dict[str, Any]:
    """An ordinary `airi run` in a process of its own: its summary, with the CPU seconds of the whole command."""
    before = _children_cpu_s()
    words = [sys.executable, "-m", "airi_sim.workbench.cli", "run", *overrides, f"hydra.run.dir={folder}"]
    done = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1].removeprefix("airi: ")
        raise BadInput(f"bench: 'airi run {' '.join(overrides)}' ended with code {done.returncode}: {said}")
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary | {"command_cpu_s": _children_cpu_s() - before}


def row_of(case: Case, runs: list[dict[str, Any]], others: Mapping[str, list[float]]) -> dict[str, Any]:
    """Medians, and what was simulated; ratios are medians of those of one turn."""
    first, seconds = runs[0], [run["engine"]["cpu_s"] for run in runs]
    requests, cpu_s = first["requests"]["offered"], median(seconds)
    tokens = (first["throughput"]["output_tokens_per_s"] or 0.0) * first["duration_s"]
    row = {
        "case": case.name, "source": case.source, "command": f"airi run {' '.join(case.overrides)}",
        "replicas": first["utilization"]["replicas"], "requests": requests, "finished": first["requests"]["finished"],
        "rejected": first["requests"]["rejected"],
        "runs": seconds, "cpu_s": cpu_s, "us_per_request": cpu_s / requests * 1e6, "requests_per_s": requests / cpu_s,
        "output_tokens_per_s": tokens / cpu_s, "passes_per_s": first["engine"]["passes"] / cpu_s,
        "plans": first["engine"]["plans"], "times_real_time": first["duration_s"] / cpu_s,
        "command_cpu_s": median([run["command_cpu_s"] for run in runs]),
        "peak_rss_mb": max(run["engine"]["peak_rss_mb"] for run in runs),
        "decisions_hashes": sorted({run["decisions_hash"] for run in runs}),
    }  # fmt: skip
    if "yardstick" in others:
        row["yardstick_s"] = median(others["yardstick"])
        row["over_yardstick"] = median([us / it for us, it in zip(seconds, others["yardstick"], strict=True)])
    if "dynamo" in others:
        row["dynamo_s"] = median(others["dynamo"])
        row["dynamo_over"] = median([it / us for us, it in zip(seconds, others["dynamo"], strict=True)])
    return row


def checks_of(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Speed is reported, never judged: what must hold is that no request was lost (each one finished, or was rejected
    because it fits no server) and that all runs decided alike."""
    over = row["finished"] + row["rejected"]
    detail = f"{row['cpu_s']:.3f} CPU s, {row['rejected']} rejected, {row['requests'] - over} neither"
    hashes = len(row["decisions_hashes"])
    return [
        {
            "name": f"{row['case']}: every request finished or rejected", "figure": over, "limit": row["requests"],
            "unit": "requests", "passed": over == row["requests"], "detail": detail,
        },
        {
            "name": f"{row['case']}: all runs decided alike", "figure": hashes, "limit": 1, "unit": "decisions_hash",
            "passed": hashes == 1, "detail": f"{len(row['runs'])} runs",
        },
    ]  # fmt: skip


def cells(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Header and rows as texts."""
    shown = {name: what for name, what in COLUMNS.items() if any(what[0] in row for row in rows)}
    lines = [[format(row[key], style) if key in row else "" for key, style in shown.values()] for row in rows]
    return [list(shown), *lines]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line a case."""
    lines = cells(rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(["  ".join(_aligned(line, widths)) for line in lines])


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The same for documents."""
    head, *lines = cells(rows)
    rule = ["---", "---", *["---:"] * (len(head) - 2)]
    return "\n".join([f"| {' | '.join(line)} |" for line in (head, rule, *lines)]) + "\n"


def _aligned(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Names to the left, figures to the right."""
    return [f"{text:<{w}}" if i < 2 else f"{text:>{w}}" for i, (text, w) in enumerate(zip(line, widths, strict=True))]


def _children_cpu_s() -> float:
    """CPU seconds of the processes that were started from here and are over."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime

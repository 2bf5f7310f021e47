"""report.html: what a run (or several, or a simulated run beside a measured one) showed, in one self-contained file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from airi_sim.core.errors import BadInput
from airi_sim.results import page
from airi_sim.results.compare import cell_text, mean_size, row_name
from airi_sim.results.metrics import Summary
from airi_sim.results.parity import Parity
from airi_sim.results.plots import Pictures, error_bars
from airi_sim.results.run import Run
from airi_sim.results.stats import STATISTICS
from airi_sim.results.style import svg
from airi_sim.results.text import NONE, digits, headline, percent, seconds

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

LATENCIES = {
    "ttft_s": "TTFT (time to first token)",
    "tpot_s": "TPOT (time per output token)",
    "itl_s": "ITL (gap between tokens)",
    "e2e_s": "E2E (whole request)",
    "queue_s": "queue (arrival to first start)",
}
MOST_SERVERS = 16


class Pair(Protocol):
    """One policy set in both worlds, as `airi compare` makes it; `table` is what `compare` returned."""

    @property
    def name(self) -> str: ...
    @property
    def sim(self) -> Run: ...
    @property
    def measured(self) -> Run: ...
    @property
    def repeat(self) -> Run | None: ...
    @property
    def table(self) -> pd.DataFrame: ...
    @property
    def parity(self) -> Parity: ...
    @property
    def doubts(self) -> Sequence[str]: ...


def report(found: Sequence[Run | Pair], path: str | Path, title: str = "", command: str = "") -> Path:
    """Write the report of runs, or of pairs (see Pair), to `path`; `command` is what reproduces it. Raises BadInput
    if there is nothing to report, if runs and pairs are mixed, or if the file cannot be written."""
    runs = [one for one in found if isinstance(one, Run)]
    pairs = [one for one in found if not isinstance(one, Run)]
    if bool(runs) == bool(pairs):
        raise BadInput("a report is about runs or about comparisons; give at least one run folder, and not both kinds.")
    if runs:
        name = title or ("Run" if len(runs) == 1 else f"{len(runs)} runs")
        body = of_runs(runs, name)
    else:
        name = title or "Simulated and measured, side by side"
        body = of_pairs(pairs, name)
    made = page.page(f"airi_sim: {name}", body + _reproduce(command))
    try:
        Path(path).write_text(made, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"'{path}' cannot be written ({error.strerror or error}); choose another folder.") from error
    return Path(path)


def of_runs(runs: Sequence[Run], title: str) -> str:
    """One run in full; several first in one table."""
    parts = [f"<h1>{escape(title)}</h1>"]
    if len(runs) > 1:
        names = [name for name, _ in headline(runs[0].summary)]
        rows = [[run.folder.name, *(dict(headline(run.summary)).get(name, "") for name in names)] for run in runs]
        parts.append(page.table(["run", *names], rows))
    for run in runs:
        parts += [f"<h2>{escape(run.folder.name)}</h2>" if len(runs) > 1 else "", _run(run)]
    return "\n".join(parts)


def of_pairs(pairs: Sequence[Pair], title: str) -> str:
    """A section for each policy set: error table, parity, pictures of one world over the other."""
    parts = [f"<h1>{escape(title)}</h1>", "<p class='soft'>The same policies and the same runtime code in two worlds: "
             "a SimPy engine with a cost model, and torch kernels that really ran.</p>"]  # fmt: skip
    if len(pairs) > 1:
        rows = [[pair.name, *(text for _, text in pair_headline(pair))] for pair in pairs]
        parts.append(page.table(["policies", *(name for name, _ in pair_headline(pairs[0]))], rows))
    parts += [_pair(pair) for pair in pairs]
    return "\n".join(parts)


def pair_headline(pair: Pair) -> list[tuple[str, str]]:
    """What one wants to know first of a comparison."""
    wall, cpu = pair.measured.summary["engine"]["wall_s"], pair.sim.summary["engine"]["cpu_s"]
    noise, floor = (mean_size(pair.table, f"{name}_pct") for name in ("noise", "selffit"))
    return [
        ("mean |error|", f"{mean_size(pair.table, 'error_pct'):.1f} %"),
        ("noise of measuring twice", "not measured" if noise != noise else f"{noise:.1f} %"),
        ("fitted on the run itself", "unknown" if floor != floor else f"{floor:.1f} %"),
        ("equal decisions", percent(pair.parity.same / max(pair.parity.total, 1))),
        ("simulation is faster by", f"{digits(wall / cpu)} x" if wall and cpu else "unknown"),
    ]


def _pair(pair: Pair) -> str:
    pictures = Pictures([pair.sim, pair.measured])
    drawn: list[tuple[Callable[[], Figure], str]] = [
        (lambda: error_bars(pair.table), "error of each figure over the noise of measuring twice"),
        (pictures.latency_cdf, "latency distributions, simulated over measured"),
        (pictures.queue_over_time, "jobs waiting over time"),
        (pictures.kv_over_time, "KV blocks in use over time"),
        (pictures.throughput_over_time, "tokens per second over time"),
    ]
    rows = [[row_name(name), *(cell_text(name, column, row[column]) for column in pair.table.columns)]
            for name, row in pair.table.iterrows()]  # fmt: skip
    return "\n".join(
        [
            f"<h2>{escape(pair.name or 'Simulated and measured')}</h2>",
            page.cards(pair_headline(pair)),
            page.warnings([*_warnings(pair.sim), *_warnings(pair.measured), *pair.doubts]),
            _parity(pair.parity),
            page.table(["", "simulated", "measured", "error", "noise floor", "self-fit floor"], rows),
            "<p class='soft'>error: (simulated - measured) / measured. Noise floor: how far a second measurement of "
            "the same thing is from the first. Self-fit floor: how far a simulation is off whose cost model was fitted "
            "on the very passes it predicts. Mean |error|: over mean, p50 and p95 of TTFT, TPOT and E2E.</p>",
            *(_drawn(draw, caption) for draw, caption in drawn),
            page.details("Configuration", _config(pair.measured)),
            _provenance([("simulated", pair.sim), ("measured", pair.measured)]),
        ]
    )


def _parity(parity: Parity) -> str:
    if parity.identical:
        return f"<p class='good'>✓ {escape(str(parity))}</p>"
    return f"<p class='bad'>✗ Decisions differ.</p><pre>{escape(str(parity))}</pre>"


def _run(run: Run) -> str:
    summary, plot = run.summary, run.plot
    source = "measured with torch" if run.source == "torch" else "simulated"
    tenants = run.requests["tenant"].nunique() > 1
    drawn = [
        (plot.latency_cdf, "latency distributions"),
        (plot.throughput_over_time, "tokens per second over time"),
        (plot.queue_over_time, "jobs waiting over time"),
        (plot.batch_over_time, "jobs decoding over time"),
        (plot.kv_over_time, "KV blocks in use over time"),
        *([(plot.service_by_tenant, "cumulative service of each tenant")] if tenants else []),
        (plot.timeline, "what every server did when"),
    ]
    return "\n".join(
        [
            f"<p class='soft'>{source}, {_calibrated(run)}</p>",
            page.cards(headline(summary)),
            page.warnings(_warnings(run)),
            "<h3>Latency</h3>",
            page.table(["", *STATISTICS], latency_rows(summary)),
            "<h3>Everything else</h3>",
            page.table(["", ""], other_rows(summary)),
            *(_drawn(draw, caption) for draw, caption in drawn),
            "<h3>Servers</h3>",
            page.table(["server", "busy", "mean decoding jobs", "most KV blocks"], server_rows(summary)),
            page.details("Configuration", _config(run)),
            _provenance([("run", run)]),
        ]
    )


def latency_rows(summary: Summary) -> list[list[str]]:
    """A row a latency."""
    return [[title, *(seconds(summary[key][kind]) for kind in STATISTICS)] for key, title in LATENCIES.items()]


def other_rows(summary: Summary) -> list[list[str]]:
    """The figures of the summary that are no latencies; those that do not exist are left out."""
    counts = ", ".join(f"{count:,} {name}" for name, count in summary["requests"].items() if count)
    slo, fair, cost = summary["slo"], summary["fairness"], summary["cost"]
    rates, engine = summary["throughput"], summary["engine"]
    known = {
        "requests": counts or "none",
        "requests/s": digits(rates["requests_per_s"]),
        "output tokens/s": digits(rates["output_tokens_per_s"]),
        "prompt and output tokens/s": digits(rates["total_tokens_per_s"]),
        "SLO attainment (of offered requests)": percent(slo["attainment"]),
        "goodput (requests/s within the SLO)": digits(slo["goodput_requests_per_s"]),
        "fairness under contention (Jain)": digits(fair["jain"]),
        "largest service difference (tokens)": digits(fair["max_service_difference"]),
        "prefix cache hit rate (tokens)": percent(summary["cache"]["hit_rate"]),
        "servers busy": percent(summary["utilization"]["busy"]),
        "preemptions": f"{summary.get('preemptions', 0):,}",
        "cost (USD)": digits(cost["usd"]),
        "energy (J)": digits(cost["joules"]),
        "carbon (g CO2)": digits(cost["gco2"]),
        "engine CPU time": seconds(engine["cpu_s"]),
        "passes": f"{engine['passes']:,}" if engine["passes"] is not None else NONE,
    }
    return [[name, text] for name, text in known.items() if text != NONE]


def server_rows(summary: Summary) -> list[list[str]]:
    """A row a server, the first 16 of them."""
    servers = summary["utilization"]["servers"]
    rows = [
        [name, percent(one["busy"]), digits(one["mean_decodes"]), f"{one['peak_kv_blocks'] or 0:,}"]
        for name, one in list(servers.items())[:MOST_SERVERS]
    ]
    left = len(servers) - len(rows)
    return [*rows, [f"and {left} more", "", "", ""]] if left else rows


def _drawn(draw: Callable[[], Figure], caption: str) -> str:
    return page.picture(svg(draw()), caption)


def _warnings(run: Run) -> list[str]:
    return list(run.summary["provenance"].get("warnings") or [])


def _calibrated(run: Run) -> str:
    if run.source == "torch":
        return "times are real"
    told = run.summary["provenance"].get("calibrated")
    return "on a calibrated device" if told else "on data sheet coefficients, not calibrated"


def _config(run: Run) -> str:
    path = run.place / "config.yaml"
    return path.read_text(encoding="utf-8") if path.is_file() else "no config.yaml was kept"


def _provenance(runs: Iterable[tuple[str, Run]]) -> str:
    lines = []
    for label, run in runs:
        known = {**run.summary["provenance"], "decisions": run.summary["decisions_hash"][:16]}
        texts = [f"{name} {value}" for name, value in known.items() if value not in ("", None) and name != "warnings"]
        lines.append(f"<p><b>{escape(label)}</b> <span class='soft'>{escape(', '.join(texts))}</span></p>")
    return "<h3>Provenance</h3>" + "".join(lines)


def _reproduce(command: str) -> str:
    if not command:
        return "<p class='soft'>To reproduce: run the configuration above with the same version and seed.</p>"
    return f"<h3>To reproduce</h3><pre>{escape(command)}</pre>"

"""Numbers as people read them."""

from __future__ import annotations

from airi_sim.results.metrics import Summary

NONE = "-"
SCALES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))


def seconds(value: float | None) -> str:
    """A duration with three digits and its unit: 12.3 ms."""
    if value is None or value != value:
        return NONE
    if value == 0:
        return "0 s"
    if abs(value) >= 600:
        return f"{value:,.0f} s"
    scale, unit = next((pair for pair in SCALES if abs(value) >= pair[0]), SCALES[-1])
    return f"{digits(value / scale)} {unit}"


def percent(value: float | None) -> str:
    """A share (0 to 1) in percent."""
    return NONE if value is None or value != value else f"{100 * value:.1f} %"


def digits(value: float | None) -> str:
    """Three significant digits, no exponent for everyday sizes, thousands apart."""
    if value is None or value != value:
        return NONE
    if abs(value) >= 999.5:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".") if abs(value) >= 1e-4 or value == 0 else f"{value:.2e}"


def headline(summary: Summary) -> list[tuple[str, str]]:
    """The figures one wants first, as (name, text)."""
    offered, finished = summary["requests"]["offered"], summary["requests"]["finished"]
    figures = [
        ("requests finished", f"{finished:,} of {offered:,}"),
        ("duration", seconds(summary["duration_s"])),
        ("output tokens/s", digits(summary["throughput"]["output_tokens_per_s"])),
        ("TTFT p50", seconds(summary["ttft_s"]["p50"])),
        ("TTFT p99", seconds(summary["ttft_s"]["p99"])),
        ("TPOT p50", seconds(summary["tpot_s"]["p50"])),
        ("E2E p50", seconds(summary["e2e_s"]["p50"])),
    ]
    figures += service_lines(summary)
    met = summary["slo"]["attainment"]
    return figures if met is None else [*figures, ("SLO attainment", percent(met))]


def service_lines(summary: Summary) -> list[tuple[str, str]]:
    """What a terminal shows of services, as (name, text): the recall of an index, the hit rate of a cache."""
    found = []
    for pool, section in (summary.get("services") or {}).items():
        if "recall" in section:
            text = f"{percent(section['recall'])} of {section['queries']:,} queries"
            found.append((f"recall of {pool}", f"{text}; {percent(section['recall_clustered'])} in its clusters"))
        if "hit_rate" in section:
            found.append((f"hit rate of {pool}", f"{percent(section['hit_rate'])} of the keys"))
    return found

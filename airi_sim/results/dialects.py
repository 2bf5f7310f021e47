"""The figures of a run under the names, in the units and by the definitions of other tools, to lay side by side.

A `Dialect` is a table: which sample a name describes, in which unit, and how the tool sums a sample up. All four count
*finished* requests only, where summary.json counts attainment over offered ones; `docs/metrics.md` has the differences.
What cannot be told (no finished request, no objective) is None, where some tools print 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from airi_sim.core.errors import unknown
from airi_sim.results.columns import Floats
from airi_sim.results.metrics import clean
from airi_sim.results.samples import Sample, Samples
from airi_sim.results.stats import percentiles

if TYPE_CHECKING:
    from airi_sim.results.run import Run

MLPERF_MIN_S, MLPERF_MIN_QUERIES, MLPERF_SHARE = 600.0, 270_336, 0.99
"""What a Server run must last and how many queries it needs for its 99th percentile (MLPerf Inference v0.5)."""

MLPERF_LIMITS: dict[str, dict[str, float]] = {
    "llama-2-70b server": {"ttft_s": 2.0, "tpot_s": 0.2},
    "llama-2-70b interactive": {"ttft_s": 0.45, "tpot_s": 0.04},
    "llama-3.1-405b server": {"ttft_s": 6.0, "tpot_s": 0.175},
    "deepseek-r1 server": {"ttft_s": 2.0, "tpot_s": 0.08},
}
"""Limits of the 99th percentiles: `run.dialect("mlperf", slo=MLPERF_LIMITS["llama-2-70b server"])`."""

TTFT_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
TPOT_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
DURATION_BUCKETS = tuple(0.01 * 2**i for i in range(14))
TOKEN_BUCKETS = tuple(float(4**i) for i in range(14))


@dataclass(frozen=True)
class Metric:
    """A name of a tool, the sample it describes, and the unit (`scale` times ours)."""

    name: str
    sample: str
    unit: str
    scale: float = 1.0
    buckets: tuple[float, ...] = ()


@dataclass(frozen=True)
class Dialect:
    """A tool: its metrics, how it tells one (`described`), and its figures that describe no sample (`totals`)."""

    metrics: tuple[Metric, ...]
    described: Callable[[Metric, Sample], dict[str, Any]]
    totals: Callable[[Samples], dict[str, Any]]


def dialect(run: Run, name: str, slo: Mapping[str, float | None] | None = None) -> dict[str, Any]:
    """The figures of a run as a tool tells them: vllm (bench serve), aiperf, mlperf (Server) or otel (GenAI
    conventions). `slo`: limits in seconds, for goodput; default those of the run. BadInput on unknown names."""
    if name not in DIALECTS:
        raise unknown("dialect", name, DIALECTS)
    spoken = DIALECTS[name]
    samples = Samples(run, run.config.get("slo") if slo is None else slo)
    told = spoken.totals(samples)
    for metric in spoken.metrics:
        sample = samples.of(metric.sample)
        told |= spoken.described(metric, Sample(sample.values * metric.scale, sample.weights))
    return clean(told)


def _vllm(metric: Metric, sample: Sample) -> dict[str, Any]:
    """Flat names; percentiles by numpy, linear."""
    names = [f"{figure}_{metric.name}" for figure in ("mean", "std", "median", "p99")]
    if not sample.count:
        return dict.fromkeys(names)
    levels = percentiles(sample.values, (50, 99), sample.weights)
    return dict(zip(names, (*sample.mean_and_std(), *levels), strict=True))


def _vllm_totals(samples: Samples) -> dict[str, Any]:
    window, done = samples.window_s, int(samples.finished.sum())
    read, written = (samples.of(name).total for name in ("tokens_in", "tokens_out"))
    return {
        "duration": window,
        "completed": done,
        "failed": len(samples.finished) - done,
        "total_input_tokens": int(read),
        "total_output_tokens": int(written),
        "request_throughput": _rate(done, window),
        "request_goodput": _rate(samples.good, window),
        "output_throughput": _rate(written, window),
        "total_token_throughput": _rate(read + written, window),
    }


AIPERF_LEVELS = (1, 5, 10, 25, 50, 75, 90, 95, 99)


def _aiperf(metric: Metric, sample: Sample) -> dict[str, Any]:
    """A record a metric; percentiles by numpy, linear."""
    names = ("avg", "std", "min", "max", *(f"p{level}" for level in AIPERF_LEVELS))
    head = {"unit": metric.unit, "count": sample.count}
    if not sample.count:
        return {metric.name: head | dict.fromkeys(names)}
    ends = sample.values.min(), sample.values.max()
    figures = (*sample.mean_and_std(), *ends, *percentiles(sample.values, AIPERF_LEVELS, sample.weights))
    return {metric.name: head | dict(zip(names, figures, strict=True))}


def _aiperf_totals(samples: Samples) -> dict[str, Any]:
    """Rates from the first send to the last response."""
    window, done = samples.served_s, int(samples.finished.sum())
    read, written = (samples.of(name).total for name in ("tokens_in", "tokens_out"))
    figures = {
        "request_count": (done, "requests"),
        "benchmark_duration": (window, "sec"),
        "request_throughput": (_rate(done, window), "requests/sec"),
        "goodput": (_rate(samples.good, window), "requests/sec"),
        "output_token_throughput": (_rate(written, window), "tokens/sec"),
        "total_token_throughput": (_rate(read + written, window), "tokens/sec"),
    }
    return {name: {"unit": unit, "avg": value} for name, (value, unit) in figures.items()}


MLPERF_FIGURES = ("mean", "50.00_percentile", "90.00_percentile", "99.00_percentile")


def _mlperf(metric: Metric, sample: Sample) -> dict[str, Any]:
    """LoadGen's percentile p is the value at place floor(n p) of the sorted sample: no interpolation."""
    names = [f"result_{metric.name.format(figure)}_ns" for figure in MLPERF_FIGURES]
    if not sample.count:
        return dict.fromkeys(names)
    levels = [placed(sample.values, share) for share in (0.5, 0.9, MLPERF_SHARE)]
    return dict(zip(names, (round(figure) for figure in (sample.mean_and_std()[0], *levels)), strict=True))


def placed(values: Floats, share: float) -> float:
    """The value at place floor(n * share) of the sorted sample."""
    return float(np.sort(values)[min(int(len(values) * share + 1e-9), len(values) - 1)])


def _mlperf_totals(samples: Samples) -> dict[str, Any]:
    """LoadGen asks for the length of the run, for enough queries, and for both 99th percentiles within the limits."""
    window, done = samples.served_s, int(samples.finished.sum())
    kept = [
        limit >= placed(samples.of(name).values, MLPERF_SHARE)
        for name, limit in samples.limits.items()
        if samples.of(name).count
    ]
    checks = {
        "result_min_duration_met": window >= MLPERF_MIN_S,
        "result_min_queries_met": done >= MLPERF_MIN_QUERIES,
        "result_perf_constraints_met": bool(kept) and all(kept) and bool(samples.finished.all()),
    }
    return {
        "result_validity": "VALID" if all(checks.values()) else "INVALID",
        **checks,
        "result_query_count": done,
        "result_completed_samples_per_sec": _rate(done, window),
        "result_completed_tokens_per_second": _rate(samples.of("tokens_out").total, window),
    }


def _otel(metric: Metric, sample: Sample) -> dict[str, Any]:
    """A histogram with fixed edges: how many are at most each edge and above the one before, the last beyond all."""
    place = np.searchsorted(metric.buckets, sample.values, side="left")
    counts = np.bincount(place, sample.weights, minlength=len(metric.buckets) + 1).astype(int)
    told = {"unit": metric.unit, "count": sample.count, "sum": sample.total}
    return {metric.name: told | {"explicit_bounds": list(metric.buckets), "bucket_counts": counts.tolist()}}


def _rate(amount: float | None, seconds: float) -> float | None:
    return amount / seconds if amount is not None and seconds > 0 else None


DIALECTS: dict[str, Dialect] = {
    "vllm": Dialect(
        (
            Metric("ttft_ms", "ttft_s", "ms", 1e3),
            Metric("tpot_ms", "tpot_s", "ms", 1e3),
            Metric("itl_ms", "chunk_s", "ms", 1e3),
            Metric("e2el_ms", "e2e_s", "ms", 1e3),
        ),
        _vllm,
        _vllm_totals,
    ),
    "aiperf": Dialect(
        (
            Metric("time_to_first_token", "ttft_s", "ms", 1e3),
            Metric("time_to_second_token", "ttst_s", "ms", 1e3),
            Metric("inter_token_latency", "tpot_s", "ms", 1e3),
            Metric("inter_chunk_latency", "chunk_s", "ms", 1e3),
            Metric("request_latency", "e2e_s", "ms", 1e3),
            Metric("output_token_throughput_per_user", "user_tokens_per_s", "tokens/sec/user"),
            Metric("input_sequence_length", "tokens_in", "tokens"),
            Metric("output_sequence_length", "tokens_out", "tokens"),
        ),
        _aiperf,
        _aiperf_totals,
    ),
    "mlperf": Dialect(
        (
            Metric("{}_latency", "e2e_s", "ns", 1e9),
            Metric("first_token_{}_latency", "ttft_s", "ns", 1e9),
            Metric("time_per_output_token_{}", "tpot_s", "ns", 1e9),
        ),
        _mlperf,
        _mlperf_totals,
    ),
    "otel": Dialect(
        (
            Metric("gen_ai.server.time_to_first_token", "ttft_s", "s", buckets=TTFT_BUCKETS),
            Metric("gen_ai.server.time_per_output_token", "tpot_s", "s", buckets=TPOT_BUCKETS),
            Metric("gen_ai.server.request.duration", "e2e_s", "s", buckets=DURATION_BUCKETS),
            Metric("gen_ai.client.operation.time_to_first_chunk", "ttft_s", "s", buckets=TTFT_BUCKETS),
            Metric("gen_ai.client.operation.time_per_output_chunk", "chunk_s", "s", buckets=TPOT_BUCKETS),
            Metric("gen_ai.client.operation.duration", "e2e_s", "s", buckets=DURATION_BUCKETS),
            Metric("gen_ai.client.token.usage{type=input}", "tokens_in", "{token}", buckets=TOKEN_BUCKETS),
            Metric("gen_ai.client.token.usage{type=output}", "tokens_out", "{token}", buckets=TOKEN_BUCKETS),
        ),
        _otel,
        lambda _: {},
    ),
}
"""The tools by the word that `run.dialect` takes."""

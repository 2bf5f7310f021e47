"""The summary of a run. Definitions:

ttft_s   first token - arrival; of every request that got one
tpot_s   (last token - first token) / (tokens - 1); one value a finished request, undefined for a single token
itl_s    each gap between successive tokens of a job, pooled over all tokens
e2e_s    finish - arrival; of finished requests
queue_s  first start of any of its jobs - arrival; of every request that was started
slo      attainment: share of *offered* requests that finished and met every limit; goodput: those a second
cost     of servers held and used, see cost.py; per_mtok: per million output tokens
tokens_per_pass   output tokens of a job in a pass in which it decodes: 1, or more where it speculates
moves    transfers between servers: how many, their bytes, the seconds each took
loads    models brought to shared devices and taken away, and how long jobs waited for theirs, see loads.py
cache    prompt tokens found in the prefix cache / prompt tokens, over started generate jobs
services by pool that is no language model: its jobs, their seconds, hit rate or recall, see services.py
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from airi_sim.core.errors import BadInput
from airi_sim.results.columns import Columns, Floats, every
from airi_sim.results.cost import bill
from airi_sim.results.fairness import fairness, union
from airi_sim.results.loads import loads
from airi_sim.results.services import sections
from airi_sim.results.slo import met, objectives
from airi_sim.results.stats import Description, describe
from airi_sim.results.tokens import Tokens

STATUSES = ("finished", "rejected", "failed", "cancelled", "unfinished")
ENGINE = ("cpu_s", "wall_s", "events", "plans", "passes", "peak_rss_mb")

Summary = dict[str, Any]


def summarise(
    tables: Mapping[str, Any],
    *,
    engine: Mapping[str, Any],
    provenance: Mapping[str, Any],
    slo: Mapping[str, float | None] | None = None,
    prices: Mapping[str, Mapping[str, Any]] | None = None,
    weights: Mapping[str, float] | None = None,
    duration_s: float | None = None,
    servers: int | None = None,
    decisions_hash: str = "",
    findings: Mapping[str, Mapping[str, Any]] | None = None,
) -> Summary:
    """What `summary.json` holds. Called once, after the run.

    `tables`: by name, rows of the log (`Log.rows`), data frames or Arrow tables. `slo`: limits in seconds (slo.py);
    `prices`: by server, see cost.py; `weights`: of tenants, default 1; `duration_s`: the window of all rates, default
    the last event; `servers`: how many replicas there are, default those that ran anything; `findings`: see
    services.py. Raises BadInput on unknown keys.
    """
    itl, per_pass = token_gaps(tables)
    read = every(tables)
    requests, jobs, plans = read["requests"], read["jobs"], read["plans"]
    window = last_event(read) if duration_s is None else duration_s
    times = latencies(requests, jobs)
    status = requests.texts("status")
    use = utilization(plans, window, servers)
    return clean(
        {
            "requests": {"offered": len(requests)} | {name: int((status == name).sum()) for name in STATUSES},
            "duration_s": window,
            "throughput": throughput(requests, window),
            **{name: describe(values) for name, values in times.items() if name != "queue_s"},
            "itl_s": itl,
            "queue_s": describe(times["queue_s"]),
            "slo": attainment(status == "finished", times, objectives(slo), window),
            "fairness": fairness(requests, jobs, window, weights),
            "cache": {"hit_rate": hit_rate(jobs)},
            "services": sections(jobs, findings),
            "utilization": use,
            "cost": bill(plans, window, float(np.nansum(requests.floats("output_tokens"))), prices),
            "tokens_per_pass": per_pass,
            "moves": moves(plans),
            "loads": loads(jobs, plans),
            "preemptions": int(np.nansum(jobs.floats("preemptions"))),
            "decisions_hash": decisions_hash,
            "engine": dict.fromkeys(ENGINE) | _counted(plans) | dict(engine),
            "provenance": dict(provenance),
        }
    )


def write_summary(folder: str | Path, summary: Summary) -> Path:
    """Write summary.json; numbers that do not exist are null."""
    path = Path(folder) / "summary.json"
    try:
        path.write_text(json.dumps(clean(summary), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise BadInput(f"'{path}' cannot be written ({error.strerror or error}); choose another folder.") from error
    return path


def token_gaps(tables: Mapping[str, Any]) -> tuple[Description, float | None]:
    """itl_s and tokens_per_pass. They need more memory than all other figures together, so nothing else is held
    meanwhile."""
    read = every(tables)
    tokens = Tokens(read["plans"], read["spans"])
    gaps, per_pass = tokens.gaps(), tokens.per_pass
    del read, tokens
    return describe(*gaps), per_pass


def latencies(requests: Columns, jobs: Columns) -> dict[str, Floats]:
    """ttft_s, tpot_s, e2e_s and queue_s by request, in the order of the table; undefined ones are nan."""
    arrival, first, finish = (requests.floats(name) for name in ("arrival_s", "first_token_s", "finish_s"))
    finish = np.where(requests.texts("status") == "finished", finish, np.nan)
    tokens = requests.floats("output_tokens")
    gaps = np.where(tokens > 1, tokens - 1, np.nan)
    return {
        "ttft_s": first - arrival,
        "tpot_s": (finish - first) / gaps,
        "e2e_s": finish - arrival,
        "queue_s": first_starts(requests, jobs) - arrival,
    }


def first_starts(requests: Columns, jobs: Columns) -> Floats:
    """When the first of its jobs was started, by request; nan if none was."""
    started, owner, ids = jobs.floats("started_s"), jobs.ints("request"), requests.ints("request")
    starts = np.full(len(ids), np.inf)
    if not len(ids):
        return starts
    order = np.argsort(ids, kind="stable")
    place = np.minimum(np.searchsorted(ids[order], owner), len(ids) - 1)
    known = ~np.isnan(started) & (ids[order][place] == owner)
    np.minimum.at(starts, order[place[known]], started[known])
    return np.where(np.isinf(starts), np.nan, starts)


def throughput(requests: Columns, window: float) -> dict[str, float | None]:
    """Finished requests, output tokens, and all processed tokens (prompts of requests that got a token) a second."""
    if not window > 0:
        return dict.fromkeys(("requests_per_s", "output_tokens_per_s", "total_tokens_per_s"))
    finished = requests.texts("status") == "finished"
    output = np.nansum(requests.floats("output_tokens"))
    served = finished | ~np.isnan(requests.floats("first_token_s"))
    prompts = np.nansum(requests.floats("prompt_tokens")[served])
    return {
        "requests_per_s": float(finished.sum() / window),
        "output_tokens_per_s": float(output / window),
        "total_tokens_per_s": float((output + prompts) / window),
    }


def attainment(
    finished: np.ndarray, times: Mapping[str, Floats], limits: Mapping[str, float], window: float
) -> dict[str, float | None]:
    """SLO attainment over offered requests and good requests a second; None where no limit is set."""
    if not limits or not len(finished):
        return {"attainment": None, "goodput_requests_per_s": None}
    good = int(met(finished, times, limits).sum())
    return {"attainment": good / len(finished), "goodput_requests_per_s": good / window if window > 0 else None}


def hit_rate(jobs: Columns) -> float | None:
    """Share of prompt tokens of started generate jobs that came from the prefix cache."""
    started = ~np.isnan(jobs.floats("started_s")) & (jobs.texts("kind") == "generate")
    prompts = np.nansum(jobs.floats("tokens_in")[started])
    return float(np.nansum(jobs.floats("cached_tokens")[started]) / prompts) if prompts else None


def moves(plans: Columns) -> dict[str, Any]:
    """Transfers between servers (KV of jobs that were handed on)."""
    rows = plans.texts("kind") == "move"
    seconds = (plans.floats("end_s") - plans.floats("start_s"))[rows]
    return {
        "count": int(rows.sum()),
        "bytes": float(plans.floats("prefill_tokens")[rows].sum()),
        "s": describe(seconds),
    }


def utilization(plans: Columns, window: float, servers: int | None = None) -> dict[str, Any]:
    """`busy`: mean busy share of the replicas; `servers`: for each that ran a pass, busy seconds and share (overlapping
    plans count once), mean decoding jobs while busy, most KV blocks used."""
    names, server = plans.servers()
    start, end, decodes = (plans.floats(name) for name in ("start_s", "end_s", "decodes"))
    blocks = plans.floats("kv_blocks")
    computing = plans.texts("kind") == "pass"
    order = np.argsort(server, kind="stable")
    firsts = np.flatnonzero(np.diff(server[order])) + 1
    each = {}
    for name, rows in zip(names, np.split(order, firsts), strict=False):
        rows = rows[computing[rows]]
        if len(rows):  # else it is a link
            each[name] = _server(start[rows], end[rows], decodes[rows], blocks[rows], window)
    replicas = max(servers or 0, len(each))
    busy = sum(one["busy_s"] for one in each.values()) / (replicas * window) if replicas and window > 0 else None
    return {"busy": busy, "replicas": replicas, "servers": each}


def last_event(tables: Mapping[str, Columns]) -> float:
    """The last moment any table speaks of; 0 for an empty run."""
    ends = (tables["requests"].floats("finish_s"), tables["plans"].floats("end_s"), tables["jobs"].floats("finished_s"))
    return max((float(times.max()) for times in map(_known, ends) if len(times)), default=0.0)


def clean(value: Any) -> Any:
    """The value in plain Python types that json knows; what is not finite is None."""
    if isinstance(value, Mapping):
        return {str(key): clean(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [clean(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _server(start: Floats, end: Floats, decodes: Floats, blocks: Floats, window: float) -> dict[str, Any]:
    begun, over = union(start, end)
    busy, weight = float((over - begun).sum()), np.nansum(end - start)
    return {
        "busy_s": busy,
        "busy": busy / window if window > 0 else None,
        "mean_decodes": float(np.nansum(decodes * (end - start)) / weight) if weight > 0 else None,
        "peak_kv_blocks": int(np.nanmax(blocks)) if len(_known(blocks)) else None,
    }


def _counted(plans: Columns) -> dict[str, int]:
    passes = plans.floats("passes")[plans.texts("kind") == "pass"]
    return {"plans": len(plans), "passes": int(np.nansum(passes))}


def _known(values: Floats) -> Floats:
    return values[~np.isnan(values)]

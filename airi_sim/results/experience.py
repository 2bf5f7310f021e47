"""What users notice of a run beyond latencies: fluency of a stream, waiting in proportion, the presence of others.

Tokens are those of a request's answer (`Run.answers`). All offered requests count: one that did not finish has a
fluidity and a QoE of 0, and undefined gaps. Everything returned is a pandas frame.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from airi_sim.core.errors import BadInput
from airi_sim.results.columns import Columns, Floats
from airi_sim.results.metrics import latencies

if TYPE_CHECKING:
    import pandas as pd

    from airi_sim.results.run import Run

FUZZ = 1e-9
"""Deadlines are sums of floats: so much later, in units of the gap between two of them, is still in time."""


def fluidity(times: Floats, first_s: float, token_s: float) -> float:
    """Fluidity index (Etalon, Agrawal et al., arXiv:2407.07000): the share of deadlines that were met.

    `times`: of the tokens, in seconds since the request came. The first is due after `first_s`, each later one
    `token_s` after the deadline before it, so early tokens earn slack. A late token misses every deadline that went by
    until it came, and the next ones are counted from when it came.
    """
    met = missed = 0
    deadline = first_s
    for at in times.tolist():
        late = (at - deadline) / token_s
        if late <= FUZZ:
            met += 1
            deadline += token_s
        else:
            missed += ceil(late - FUZZ)
            deadline = at + token_s
    return met / (met + missed) if len(times) else 0.0


def qoe(times: Floats, first_s: float, speed: float) -> float:
    """Quality of experience (Andes, Liu et al., arXiv:2404.16283): 1 - S_delay / S_whole, within [0, 1].

    A user expects the first token `first_s` seconds after asking and reads `speed` tokens a second, no faster however
    early tokens come. S_whole is the area below the curve of expected tokens until the user has read the last,
    S_delay the area between it and the curve of tokens that were read. `times`: seconds since the request came.
    """
    if not len(times):
        return 0.0
    places = np.arange(len(times)) / speed
    read = np.maximum.accumulate(times - places) + places
    expected = first_s + places
    end = read[-1] + 1 / speed
    whole, actual = (float(_below(starts, end, speed)) for starts in (expected, read))
    return min(1.0, actual / whole) if whole > 0 else 1.0


def _below(starts: Floats, end: float, speed: float) -> float:
    """Area until `end` below a curve that goes up by one during 1 / speed seconds from each start on."""
    inside = np.clip(end - starts, 0, None)
    ramp = np.minimum(inside, 1 / speed)
    return float((ramp**2 * speed / 2 + inside - ramp).sum())


def slowest_gaps(times: Floats, share: float = 0.1) -> float:
    """Mean of the slowest tenth of the gaps between tokens, at least one (Mooncake's TBT); nan for a single token."""
    gaps = np.sort(np.diff(times))
    return float(gaps[-ceil(share * len(gaps)) :].mean()) if len(gaps) else float("nan")


def experience(
    run: Run,
    *,
    first_s: float = 1.0,
    first_token_s: float = 0.0,
    token_s: float = 0.1,
    speed: float = 4.8,
) -> pd.DataFrame:
    """A row an offered request: fluidity, qoe, ttft_s, tbt_s (slowest tenth of gaps), normalised_s (E2E / tokens).

    The first token is expected after `first_s` and `first_token_s` more per prompt token, further ones `token_s` apart
    (fluidity) or at `speed` a second (QoE). Etalon's fluid token rate is the highest 1 / token_s at which the index
    reaches .9 for 99 % of the requests: `(frame.fluidity >= .9).mean() >= .99`.
    """
    for name, value in (("first_s", first_s), ("token_s", token_s), ("speed", speed)):
        if not value > 0:
            raise BadInput(f"{name} of an expected stream must be above 0, not {value}.")
    told, answers = _latencies(run), run.answers()
    requests = run.requests.set_index("request")
    told["normalised_s"] = told.pop("e2e_s") / requests["output_tokens"].where(requests["output_tokens"] > 0)
    none = np.empty(0)
    arrived = zip(requests.index.tolist(), requests["arrival_s"].tolist(), strict=True)
    streams = [answers.get(request, none) - arrival for request, arrival in arrived]
    due = first_s + first_token_s * requests["prompt_tokens"]
    told["fluidity"] = [fluidity(times, first, token_s) for times, first in zip(streams, due, strict=True)]
    told["qoe"] = [qoe(times, first, speed) for times, first in zip(streams, due, strict=True)]
    told["tbt_s"] = [slowest_gaps(times) for times in streams]
    return told


def effective_capacity(told: pd.DataFrame, ttft_s: float = 30.0, tbt_s: float = 0.1) -> float:
    """Share of offered requests whose first token and slowest gaps keep the limits (Mooncake, Qin et al., FAST 2025);
    of the frame of `experience`. A single token has no gap to keep."""
    finished = told["normalised_s"].notna()
    kept = finished & (told["ttft_s"] <= ttft_s) & ~(told["tbt_s"] > tbt_s)
    return float(kept.mean()) if len(kept) else float("nan")


def slowdown_by_class(run: Run, alone: Run, classes: int = 4) -> pd.DataFrame:
    """E2E over the E2E of the same request without company, by size (prompt and output tokens, classes of about equal
    numbers): requests, tokens up to, mean, p50, p99. Fair is a p99 that does not depend on size.

    `alone`: the same requests one at a time (workload.concurrency=1). BadInput if they are other requests.
    """
    import pandas as pd

    both = pd.DataFrame({name: _latencies(one)["e2e_s"] for name, one in (("here", run), ("alone", alone))}).dropna()
    here, there = (one.requests.set_index("request").loc[both.index] for one in (run, alone))
    if not len(both) or not here["prompt_tokens"].equals(there["prompt_tokens"]):
        raise BadInput("the two runs are not the same requests: slowdown needs the same workload and the same seed.")
    size = here["prompt_tokens"] + here["output_tokens"]
    place = np.minimum((size.rank(method="average") - 1) * classes // len(size), classes - 1)
    slowed = (both["here"] / both["alone"]).groupby(place.astype(int))
    columns = {"requests": slowed.size(), "tokens_to": size.groupby(place.astype(int)).max(), "mean": slowed.mean()}
    quantiles = {f"p{level}": slowed.quantile(level / 100) for level in (50, 99)}
    return pd.DataFrame(columns | quantiles).rename_axis("class")


def isolation(run: Run, alone: Run) -> pd.DataFrame:
    """A row a tenant of `alone`, a run in which it had the machines to itself: mean and p99 of TTFT and E2E here over
    there. 1 is perfect; a tenant that asks for no more than its share should stay near it whatever others do."""
    import pandas as pd

    here, there = (_by_tenant(one) for one in (run, alone))
    known = [name for name in there if name in here]
    if not known:
        raise BadInput("the two runs have no tenant in common: isolation compares a tenant with itself.")
    ratios = {name: here[name] / there[name] for name in known}
    return pd.DataFrame(ratios).T.rename_axis("tenant")


def _by_tenant(run: Run) -> dict[str, pd.Series]:
    """Mean and p99 of the latencies of each tenant."""
    import pandas as pd

    groups = _latencies(run).groupby(run.requests.set_index("request")["tenant"])
    kinds = {"mean": groups.mean(), "p99": groups.quantile(0.99)}
    columns = {f"{name}_{kind}": told[f"{name}_s"] for kind, told in kinds.items() for name in ("ttft", "e2e")}
    table = pd.DataFrame(columns)
    return {str(name): row for name, row in table.iterrows()}


def _latencies(run: Run) -> pd.DataFrame:
    """ttft_s and e2e_s by request, as the summary defines them."""
    import pandas as pd

    times = latencies(Columns("requests", run.requests), Columns("jobs", run.jobs))
    index = pd.Index(run.requests["request"], name="request")
    return pd.DataFrame({name: times[name] for name in ("ttft_s", "e2e_s")}, index=index)

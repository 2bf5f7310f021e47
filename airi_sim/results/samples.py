"""What can be described of a run beyond its summary: samples of finished requests, made when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from airi_sim.results.columns import Columns, Counts, Floats
from airi_sim.results.metrics import latencies
from airi_sim.results.slo import met, objectives
from airi_sim.results.tokens import Tokens

if TYPE_CHECKING:
    from airi_sim.results.run import Run


@dataclass(frozen=True)
class Sample:
    """Values, and how often each occurs (None: once)."""

    values: Floats
    weights: Counts | None = None

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.values) if self.weights is None else int(self.weights.sum())

    @property
    def total(self) -> float:
        """Their sum."""
        return float(self.values.sum() if self.weights is None else self.values @ self.weights)

    def kept(self, rows: Any) -> Sample:
        """Those of some rows."""
        return Sample(self.values[rows], None if self.weights is None else self.weights[rows])

    def mean_and_std(self) -> tuple[float, float]:
        """Mean and standard deviation (of the population, as numpy's std)."""
        mean = float(np.average(self.values, weights=self.weights))
        return mean, float(np.sqrt(np.average((self.values - mean) ** 2, weights=self.weights)))


class Samples:
    """What can be described of a run, each sample made when asked for: of finished requests, in seconds and tokens.

    ttft_s, tpot_s, e2e_s   as summary.json defines them
    itl_s                   gaps between tokens, pooled
    chunk_s                 gaps between chunks: tokens emitted at the same moment came in one chunk
    ttst_s                  from the first to the second token of a request's answer
    user_tokens_per_s       1 / tpot_s
    tokens_in, tokens_out   of a request
    """

    def __init__(self, run: Run, slo: Mapping[str, float | None] | None = None) -> None:
        self.run = run
        self.limits = objectives(slo)
        self.requests = Columns("requests", run.requests)
        self.finished = self.requests.texts("status") == "finished"
        self.times = latencies(self.requests, Columns("jobs", run.jobs))
        self.window_s = float(run.summary["duration_s"])

    def of(self, name: str) -> Sample:
        """A sample by its name; undefined values are left out."""
        sample = self._sample(name)
        return sample.kept(~np.isnan(sample.values))

    def _sample(self, name: str) -> Sample:
        if name in ("itl_s", "chunk_s"):
            gaps = Sample(*self.tokens.gaps())
            return gaps if name == "itl_s" else gaps.kept(gaps.values > 0)
        if name == "ttst_s":
            return Sample(np.array([times[1] - times[0] for times in self.run.answers().values() if len(times) > 1]))
        if name == "user_tokens_per_s":
            return Sample(1 / self.of("tpot_s").values)
        if name.startswith("tokens_"):
            column = {"tokens_in": "prompt_tokens", "tokens_out": "output_tokens"}[name]
            return Sample(self.requests.floats(column)[self.finished])
        return Sample(self.times[name][self.finished])

    @cached_property
    def tokens(self) -> Tokens:
        """Token times of the jobs of finished requests."""
        run, done = self.run, self.run.requests["request"][self.finished]
        jobs = run.jobs["job"][run.jobs["request"].isin(done)]
        return Tokens(Columns("plans", run.plans), Columns("spans", run.spans[run.spans["job"].isin(jobs)]))

    @property
    def good(self) -> int | None:
        """Requests that met all objectives; None if there are none. One token has no time per token to miss."""
        return int(met(self.finished, self.times, self.limits).sum()) if self.limits else None

    @property
    def served_s(self) -> float:
        """First arrival to last finish of a finished request."""
        ends, begins = self.requests.floats("finish_s")[self.finished], self.requests.floats("arrival_s")
        return float(ends.max() - begins.min()) if len(ends) else 0.0

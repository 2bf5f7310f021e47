"""A finished run, read from its folder: tables as data frames, the summary, pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airi_sim.core.errors import BadInput
from airi_sim.results.columns import Columns, Floats
from airi_sim.results.fairness import lags
from airi_sim.results.metrics import Summary
from airi_sim.results.parts import PASSES, Parts
from airi_sim.results.tables import read_table
from airi_sim.results.text import headline
from airi_sim.results.tokens import Tokens

if TYPE_CHECKING:
    import pandas as pd

    from airi_sim.results.plots import Pictures

SECTIONS = (
    "requests", "duration_s", "throughput", "ttft_s", "tpot_s", "e2e_s", "slo", "fairness", "cache", "utilization",
    "cost", "engine", "provenance", "decisions_hash",
)  # fmt: skip
"""What reports read of a summary."""


def load(folder: str | Path) -> Run:
    """The run in a folder. Raises BadInput where there is none."""
    return Run(folder)


class Run:
    """A run folder. Everything is read when first asked for; times are seconds from the start of the run.

    requests, jobs, plans, decisions, spans: pandas data frames (columns: docs of the run folder).
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        complete = all((self.folder / name).is_file() for name in ("summary.json", "requests.parquet"))
        if not complete and Parts.of(self.folder) is None:
            raise BadInput(
                f"'{folder}' is not a run folder: it has no summary.json and requests.parquet; give the folder that "
                "a finished `airi run` printed."
            )

    @cached_property
    def parts(self) -> Parts | None:
        """What there is of a measured run that did not come to its end (a warning of the summary says what is missing);
        None of one that did."""
        return Parts.of(self.folder)

    @property
    def place(self) -> Path:
        """Where its files are."""
        return self.folder if self.parts is None else self.parts.folder

    @cached_property
    def requests(self) -> pd.DataFrame:
        """A row a request, as the user saw it."""
        return self._frame("requests")

    @cached_property
    def jobs(self) -> pd.DataFrame:
        """A row a call of a model or service."""
        return self._frame("jobs")

    @cached_property
    def plans(self) -> pd.DataFrame:
        """A row a run of equal passes (or a move, or a load) of a server."""
        return self._frame("plans")

    @cached_property
    def decisions(self) -> pd.DataFrame:
        """A row a choice of a policy."""
        return self._frame("decisions")

    @cached_property
    def spans(self) -> pd.DataFrame:
        """A row a stay of a job among the decoding ones; token times come from these."""
        return self._frame("spans")

    @cached_property
    def passes(self) -> pd.DataFrame:
        """A row a measured pass: what ran, its seconds, and how they split (prep_s, forward_s, sample_s); BadInput
        where nothing was measured."""
        return self._frame(PASSES)

    @cached_property
    def summary(self) -> Summary:
        """What summary.json holds. Raises BadInput where it is not the summary of a run."""
        if self.parts is not None:
            return self.parts.summary()
        path = self.folder / "summary.json"
        try:
            found: Summary = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise BadInput(f"'{path}' cannot be read as JSON ({error}); run it again.") from error
        missing = [key for key in SECTIONS if not isinstance(found, dict) or key not in found]
        if missing:
            raise BadInput(f"'{path}' is not the summary of a run: it has no {', '.join(missing)}; run it again.")
        return found

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration of the run; empty where none was kept."""
        import yaml

        path = self.place / "config.yaml"
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {} if path.is_file() else {}

    @property
    def source(self) -> str:
        """sim or torch: the world it ran in."""
        return self.summary.get("provenance", {}).get("source") or "sim"

    @property
    def plot(self) -> Pictures:
        """Pictures as matplotlib figures: run.plot.latency_cdf()."""
        from airi_sim.results.plots import Pictures

        return Pictures([self])

    @cached_property
    def tokens(self) -> Tokens:
        """Token times of all jobs."""
        return Tokens(Columns("plans", self.plans), Columns("spans", self.spans))

    def token_times(self, job: int) -> Floats:
        """When each output token of a job was emitted, in seconds; empty if it emitted none."""
        return self.tokens.times(job)

    def answers(self) -> dict[int, Floats]:
        """When each token of the answer was emitted, by request, in seconds; of finished requests that got tokens. The
        answer is the last call that generates."""
        done = set(self.requests["request"][self.requests["status"] == "finished"])
        calls = self.jobs[(self.jobs["kind"] == "generate") & self.jobs["request"].isin(done)]
        last = calls.sort_values(["finished_s", "job"]).groupby("request")["job"].last()
        owner = dict(zip(last, last.index, strict=True))
        return {int(owner[job]): times for job, times in self.tokens.each() if job in owner}

    def dialect(self, name: str, slo: Mapping[str, float | None] | None = None) -> dict[str, Any]:
        """The figures as another tool tells them: vllm, aiperf, mlperf or otel (see dialects.py, docs/metrics.md)."""
        from airi_sim.results.dialects import dialect

        return dialect(self, name, slo)

    def experience(self, **expected: float) -> pd.DataFrame:
        """Fluidity index, QoE, slowest gaps and normalised latency of every offered request (experience.py)."""
        from airi_sim.results.experience import experience

        return experience(self, **expected)

    def slowdown(self, alone: Run, classes: int = 4) -> pd.DataFrame:
        """How much longer requests take than alone, by size class (experience.py). `alone`: the same run with
        workload.concurrency=1."""
        from airi_sim.results.experience import slowdown_by_class

        return slowdown_by_class(self, alone, classes)

    def isolation(self, alone: Run) -> pd.DataFrame:
        """Latencies of the tenants of `alone`, here over there (experience.py)."""
        from airi_sim.results.experience import isolation

        return isolation(self, alone)

    def lags(self, window_s: float = 60.0, weights: Mapping[str, float] | None = None) -> pd.DataFrame:
        """By how much service each tenant is behind, window by window (fairness.lags): a column a tenant, the index is
        the end of the window in seconds."""
        import pandas as pd

        tables = Columns("requests", self.requests), Columns("jobs", self.jobs)
        ends, behind = lags(*tables, float(self.summary["duration_s"]), window_s, weights)
        return pd.DataFrame(behind, index=pd.Index(ends, name="end_s"))

    def __repr__(self) -> str:
        return f"Run({self.source}: " + ", ".join(f"{name} {text}" for name, text in headline(self.summary)) + ")"

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<td style='padding:4px 18px 4px 0;text-align:left'><div style='opacity:.65;font-size:85%'>{name}</div>"
            f"<b>{text}</b></td>"
            for name, text in headline(self.summary)
        )
        warnings = "".join(f"<div>⚠ {escape(text)}</div>" for text in self.summary["provenance"].get("warnings", []))
        return f"<div><b>{escape(self.source)} run</b><table><tr>{cells}</tr></table>{warnings}</div>"

    def _frame(self, name: str) -> pd.DataFrame:
        table = read_table(self.folder, name) if self.parts is None else self.parts.table(name)
        return table.to_pandas()

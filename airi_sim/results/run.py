"""A finished run, read from its folder: tables as data frames, the summary, pictures."""

from __future__ import annotations

import json
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airi_sim.core.errors import BadInput
from airi_sim.results.columns import Columns, Floats
from airi_sim.results.metrics import Summary
from airi_sim.results.tables import read_table
from airi_sim.results.text import headline
from airi_sim.results.tokens import Tokens

if TYPE_CHECKING:
    import pandas as pd

    from airi_sim.results.plots import Pictures


def load(folder: str | Path) -> Run:
    """The run in a folder. Raises BadInput where there is none."""
    return Run(folder)


class Run:
    """A run folder. Everything is read when first asked for; times are seconds from the start of the run.

    requests, jobs, plans, decisions, spans: pandas data frames (columns: docs of the run folder).
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / "summary.json").is_file() or not (self.folder / "requests.parquet").is_file():
            raise BadInput(
                f"'{folder}' is not a run folder: it has no summary.json and requests.parquet; give the folder that "
                "a finished `airi run` printed."
            )

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
    def summary(self) -> Summary:
        """What summary.json holds."""
        return json.loads((self.folder / "summary.json").read_text(encoding="utf-8"))

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration of the run; empty where none was kept."""
        import yaml

        path = self.folder / "config.yaml"
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
        return read_table(self.folder, name).to_pandas()

"""airi report DIR...: (re)build the HTML report of run folders or of a comparison."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from airi_sim.core.errors import BadInput
from airi_sim.results.parts import Parts
from airi_sim.workbench.compared import load_comparisons
from airi_sim.workbench.reports import report_comparison, report_runs


def command(overrides: Sequence[str], show: bool = False) -> int:
    """Build and print the path; several run folders give one report that sets them side by side. What is missing of a
    run that was killed is said on stderr too."""
    folders = [Path(word) for word in overrides]
    if not folders or show:
        raise BadInput("airi report needs the run folders to report on: airi report DIR [DIR ...].")
    for parts in filter(None, map(Parts.of, folders)):
        print(f"{parts.folder.parent}: {parts.missing()}", file=sys.stderr)
    pairs = load_comparisons(folders[0])
    print(report_comparison(pairs, folders[0]) if pairs else report_runs(folders))
    return 0

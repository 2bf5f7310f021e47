"""Recorded runs of real systems, simulated again and scored: what `airi validate validate=fidelity` does.

One module a dataset. A dataset module has

    NEEDS: tuple[str, ...]                     files, relative to the data folder, without which it is skipped
    score(folder, options, progress) -> list[Row]

and its name stands in `DATASETS`. It reads its files below `folder`, simulates each run with `simulate.simulate`
(or costs a point with the cost model alone), and answers a `Row` per run, mode and metric. It tunes nothing: every
coefficient comes from conf or from files that hold no run it scores. `progress` is told in words what is being done.
"""

DATASETS = ("sim2real", "splitwise", "replays", "vtc", "unseen")
"""Modules of this package, in the order of the table; those whose files are absent are skipped with a line."""

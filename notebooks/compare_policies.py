# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Which policy is better? A fair comparison
#
# Two runs differ by the policy and by luck: which requests came, and when. Here four sets of policies run on the same
# requests (common random numbers), several times with other ones, and differences are taken seed by seed. At the end
# stands what the same runs would have said to somebody who compares averages only.
#
# On the command line this is `airi study 'study.policies={...}'`.

# %%
import io
import json
import os
from contextlib import redirect_stderr
from pathlib import Path

import pandas as pd
from scipy import stats

from airi_sim import load
from airi_sim.results import style
from airi_sim.results.stats import paired_interval
from airi_sim.workbench.study import study

REQUESTS = int(os.environ.get("COMPARE_REQUESTS", "1500"))
SEEDS = list(range(int(os.environ.get("COMPARE_SEEDS", "8"))))
FOLDER = Path("runs/compare_policies")

# %% [markdown]
# ## 1. The question
#
# Four replicas of Llama 3.1 8B, requests like those of the Azure conversation trace, at two loads, none of
# which fills them. Does it pay to look at the replicas before sending a request somewhere, by counting jobs (of two
# drawn ones, of all) or by the work they mean? The first set is what the others are compared with.

# %%
POLICIES = {
    "round_robin": {"router": "round_robin"},
    "p2c": {"router": "p2c"},
    "jsq": {"router": "jsq"},
    "least_work": {"router": "least_work"},
}
LOADS = [0.8, 1.0]
WORDS = ["workload=azure_like", f"workload.n={REQUESTS}", "workload.rate=90", "pool.replicas=4"]

# %% [markdown]
# ## 2. The runs
#
# Every set at every load with every seed. A seed fixes every request: its lengths, and when it comes. A policy that
# draws (p2c) draws from a stream of its own, so it cannot disturb the requests. The progress goes to stderr.

# %%
sets = json.dumps(POLICIES).replace('"', "")  # as on the command line: {name: {router: jsq}}
with redirect_stderr(io.StringIO()) as progress:
    cells = study([*WORDS, f"study.policies={sets}", f"study.loads={LOADS}", f"study.seeds={SEEDS}"], FOLDER)
print(f"{len(progress.getvalue().splitlines())} runs")

# %% [markdown]
# ## 3. Differences, seed by seed
#
# Each cell is a figure of one set at one load: its mean over the seeds, and the mean of the differences to the first
# set with its 95 % interval. `clear` says that zero is outside of it.

# %%
table = pd.DataFrame(
    {
        "load": cell.load,
        "policies": cell.policies,
        "figure": cell.figure,
        "mean": cell.mean.mean,
        "difference": cell.difference.mean,
        "low": cell.difference.low,
        "high": cell.difference.high,
        "clear": cell.difference.clear,
    }
    for cell in cells
    if cell.difference is not None and cell.figure in ("ttft_mean_s", "ttft_p99_s", "e2e_mean_s")
)
table.set_index(["figure", "load", "policies"]).sort_index().round(4)


# %% [markdown]
# ## 4. What an unpaired comparison would say
#
# The same figures without the pairs: two samples, one a policy, and Welch's interval for the difference of their means.
# That is the right one if each policy had run on requests of its own, and what one does when reading two averages from
# two papers.


# %%
def by_seed(policies: str, load: float) -> list[float]:
    """Mean seconds from end to end, run by run."""
    places = [FOLDER / f"load-{load:g}" / policies / f"seed-{seed}" for seed in SEEDS]
    return [json.loads((place / "summary.json").read_text())["e2e_s"]["mean"] for place in places]


rows = []
for at in LOADS:
    first = by_seed("round_robin", at)
    for name in list(POLICIES)[1:]:
        mine = by_seed(name, at)
        paired, welch = (
            paired_interval(mine, first),
            stats.ttest_ind(mine, first, equal_var=False).confidence_interval(),
        )
        rows.append(
            {
                "load": at,
                "policies": name,
                "difference": paired.mean,
                "paired_low": paired.low,
                "paired_high": paired.high,
                "unpaired_low": welch.low,
                "unpaired_high": welch.high,
                "correlation": stats.pearsonr(mine, first).statistic,
                "times_the_seeds": ((welch.high - welch.low) / (paired.high - paired.low)) ** 2,
            }
        )
both = pd.DataFrame(rows).set_index(["load", "policies"])
both.to_csv(FOLDER / "intervals.csv")
both.round(4)

# %% [markdown]
# `times_the_seeds`: how many times as many seeds the unpaired comparison would need for an interval as narrow. A seed
# that is hard for one policy is hard for the other (`correlation`), and that part cancels in the difference of a pair.

# %%
picture, panels = style.figure(columns=len(LOADS), height=2.6)
names = list(POLICIES)[1:]
for axes, at in zip(panels, LOADS, strict=True):
    for place, (kind, colour) in enumerate({"paired": style.SERIES[0], "unpaired": style.SERIES[1]}.items()):
        found = both.loc[at].loc[names]
        where = [row + 0.25 * (place - 0.5) for row in range(len(names))]
        middle = (found[f"{kind}_low"] + found[f"{kind}_high"]) / 2
        axes.errorbar(
            middle, where, xerr=found[f"{kind}_high"] - middle, fmt="o", ms=4, capsize=3, color=colour, label=kind
        )
    axes.axvline(0, color=style.INK, lw=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    style.titled(axes, f"Load {at:g}", "mean end to end, less that of round_robin (s)")
picture.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
picture

# %% [markdown]
# ## 5. Where a difference comes from
#
# That joining the shortest queue can be worse than not looking may surprise. A request joins a hundred others that are
# decoding and hardly notice it; what it waits for is the prompts that came just before. The number of jobs follows
# decodes, and the replica that has a few less gets several requests in a row, whose prompts then wait for each other:


# %%
def twice_in_a_row(policies: str) -> float:
    """Share of the requests that went where the one before went; at random it would be a fourth."""
    jobs = load(FOLDER / f"load-{LOADS[-1]:g}" / policies / f"seed-{SEEDS[0]}").jobs.sort_values("submitted_s")
    return float((jobs.server == jobs.server.shift()).mean())


pd.Series({name: twice_in_a_row(name) for name in POLICIES}, name="share").round(3)

# %% [markdown]
# ## Next
#
# * Each interval misses one time in twenty, so of two dozen one is likely to be wrong: decide beforehand which figure
#   counts, or ask for more (`paired_interval(a, b, confidence=0.998)`).
# * Intervals twice as narrow take four times as many seeds.
# * `python -m experiments.queues`: a dozen orders of a queue on one trace; `docs/policies.md`: every policy there is.

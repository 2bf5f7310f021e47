"""When separate prefill and decode pools pay: the same accelerators laid out in several ways, on the same requests.

    python -m experiments.disaggregation
    python -m experiments.disaggregation sweep.rates=[40,80] transfer.layerwise=true

Question: up to which load does each layout keep its promises, and what does it pay for that? A replica that does both
makes decoding jobs wait for prompts (high percentiles of the gaps between tokens); separate pools do not, but their
ratio must fit the workload, and KV moves. Layouts, rates and seeds stand in conf/experiment/disaggregation.yaml; one of
your own is +sweep.layouts.mine='{p: {role: prefill, replicas: 3}, d: {role: decode}}'. The folder of the sweep gets
disaggregation.csv (a row a run), disaggregation.png and one run folder a run.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airi_sim.core.errors import BadInput
from airi_sim.results import style
from airi_sim.results.frames import frame
from airi_sim.workbench.blame import blaming
from airi_sim.workbench.build import build
from airi_sim.workbench.config import load_config, plain
from airi_sim.workbench.execute import execute
from experiments.parts import listed, numbers, start

if TYPE_CHECKING:
    import pandas as pd

PANELS = {
    "ttft_p99_s": "Time to first token, p99 (s)",
    "itl_p99_s": "Gap between tokens, p99 (s)",
    "slo_attainment": "Requests within the SLO (%)",
}


def sweep(overrides: Sequence[str]) -> tuple[Path, pd.DataFrame]:
    """Run every layout at every rate with every seed; returns the folder and a row a run."""
    base = load_config(["experiment=disaggregation", *overrides])
    what, folder = plain(base)["sweep"], Path(base.hydra.run.dir)
    rates, seeds, layouts = numbers("sweep.rates", what["rates"]), listed("sweep.seeds", what["seeds"]), what["layouts"]
    check(layouts, plain(base))
    rows = []
    for layout, pools in layouts.items():
        for rate in rates:
            for seed in seeds:
                words = ["experiment=disaggregation", *overrides, f"workload.rate={rate}", f"seed={seed}"]
                config = {**plain(load_config(words)), "pools": pools}
                print(f"{layout} at {rate:g} requests/s, seed {seed}", file=sys.stderr)
                place = folder / layout / f"rate-{rate:g}" / f"seed-{seed}"
                rows.append({"layout": layout, "rate": rate, "seed": seed, **figures(execute(config, place))})
    return folder, frame(rows)


def check(layouts: Any, config: dict[str, Any]) -> None:
    """BadInput for a layout that cannot be built, before the first of them runs."""
    if not isinstance(layouts, Mapping) or not layouts:
        raise BadInput(f"sweep.layouts must be pools by name of the layout, at least one, not {layouts!r}.")
    for name, pools in layouts.items():
        if not isinstance(pools, Mapping) or not pools:
            raise BadInput(f"sweep.layouts.{name} must be pools by name, at least one, not {pools!r}.")
        laid_out = {**config, "pools": pools}
        with blaming(laid_out):
            build(laid_out)


def figures(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What is compared, of one run."""
    return {
        "ttft_p50_s": summary["ttft_s"]["p50"],
        "ttft_p99_s": summary["ttft_s"]["p99"],
        "tpot_p99_s": summary["tpot_s"]["p99"],
        "itl_p99_s": summary["itl_s"]["p99"],
        "move_mean_s": summary["moves"]["s"]["mean"],
        "slo_attainment": summary["slo"]["attainment"],
        "usd_per_mtok": summary["cost"]["usd_per_mtok"],
        "joules_per_mtok": summary["cost"]["joules_per_mtok"],
    }


def draw(table: pd.DataFrame, path: Path) -> None:
    """One panel a figure, one line a layout: the mean over the seeds, and a dot a run."""
    made, panels = style.figure(columns=len(PANELS), height=3.2)
    made.set_facecolor("white")
    layouts = list(dict.fromkeys(table["layout"]))
    for axes, (figure, title) in zip(panels, PANELS.items(), strict=True):
        for layout, colour in zip(layouts, style.SERIES, strict=False):
            runs = table[table["layout"] == layout]
            axes.plot(runs["rate"], runs[figure], ".", color=colour, ms=4, alpha=0.5)
            axes.plot(runs.groupby("rate")[figure].mean(), color=colour, lw=1.7)
        style.titled(axes, title, "requests/s")
    for axes in panels[:2]:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panels[2].yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f}")
    panels[2].set_ylim(0, 1.04)
    made.legend(
        panels[0].get_lines()[1::2], layouts, loc="outside lower center", ncols=len(layouts), frameon=False,
        labelcolor="linecolor",
    )  # fmt: skip
    made.savefig(path, dpi=160)


def main(overrides: Sequence[str]) -> int:
    """Sweep, print the means over the seeds, write table and picture; returns the exit code (2: bad input)."""
    try:
        folder, table = sweep(overrides)
    except BadInput as error:
        print(f"disaggregation: {error}", file=sys.stderr)
        return 2
    table.to_csv(folder / "disaggregation.csv", index=False)
    draw(table, folder / "disaggregation.png")
    means = table.drop(columns="seed").groupby(["layout", "rate"], sort=False).mean()
    print(means.to_string(float_format=lambda value: f"{value:.3g}", na_rep="-"))
    print(f"table and picture: {folder / 'disaggregation.csv'}, {folder / 'disaggregation.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(start(main, __doc__))

"""`airi bench bench.cases=backend`: how close the torch backend comes to its own matrix products, and to a plain loop.

A run of the product's own loop with the policies of the config gives throughput and what the runtime costs a pass;
beside it the backend measures passes of as many decodes as there are seats, and transformers the same requests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from airi_sim.core.errors import BadInput
from airi_sim.core.log import TABLES
from airi_sim.workbench.build import World, build, build_backend
from airi_sim.workbench.config import load_config, plain, show_config
from airi_sim.workbench.execute import rarely_collecting
from airi_sim.workbench.folders import run_folder
from airi_sim.workbench.progress import Progress

CASE = "backend"
DEFAULTS = (
    "backend=torch", "model=small", "precision=fp32", "workload=poisson", "workload.rate=null", "workload.n=32",
    "workload.input.kind=constant", "workload.input.mean=64", "workload.input.sigma=null",
    "workload.output.kind=constant", "workload.output.mean=32", "workload.output.sigma=null",
    "server.max_num_seqs=16", "server.max_num_batched_tokens=512", "server.prefix_caching=false",
)  # fmt: skip
"""What is measured unless the command line says otherwise."""
TURNS = 20
"""Turns of one bench.repeat."""
PARTS = ("pass", "gemm", "attention", "gather", "store", "norm_rope_sum", "sampling", "prep", "python")
COLUMNS = {
    "context": (1, "d"),
    **dict.fromkeys((*PARTS, "gemm_alone", "attention_alone", "attention_from_memory"), (1e3, ".2f")),
    **dict.fromkeys(("share_of_bound", "share_from_memory", "python_share"), (1, ".2f")),
}  # fmt: skip
"""Columns of the table, and how their figures are written: times in milliseconds."""


def asked(cases: Any) -> bool:
    """Whether bench.cases means this one; BadInput if it is to run among others."""
    names = [cases] if isinstance(cases, str) else list(cases)
    if CASE in names and len(names) > 1:
        raise BadInput(f"bench.cases: '{CASE}' measures torch and not the simulator: run it alone, bench.cases={CASE}.")
    return names == [CASE]


def command(overrides: Sequence[str], show: bool = False) -> int:
    """Measure; tables on stdout, bench.json, bench.md and checks.json in the run folder."""
    config = load_config([*DEFAULTS, *overrides])
    if show:
        return show_config(config)
    with run_folder(config, overrides) as folder:
        found = measured(plain(config))
        write(found, folder)
    print(text_of(found))
    print(f"table: {folder / 'bench.json'}")
    return 0 if all(check["passed"] for check in checks_of(found)) else 1


def write(found: Mapping[str, Any], folder: Path) -> None:
    """The files of the run folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(found, indent=1))
    (folder / "bench.md").write_text(markdown(found["splits"]) + "\n" + sentences(found) + "\n")
    (folder / "checks.json").write_text(json.dumps(checks_of(found), indent=1))


def measured(config: Mapping[str, Any]) -> dict[str, Any]:
    """All figures: `splits` a row a context, `loop` of the run, `plain` of transformers (null without it)."""
    if config["backend"]["name"] == "sim":
        raise BadInput(f"bench.cases={CASE} measures: give it a backend that does (backend=torch), not backend=sim.")
    config = {**config, "backend": {**config["backend"], "cocalibrate": False}}  # no samples between the passes
    backend: Any = build_backend(config)
    world = build(config, backend)
    deployment = world.generate.deployment
    efficiency, progress = backend.efficiency(deployment), Progress(CASE)
    progress.say("the run")
    loop = run(world, backend)
    progress.say("the loop of transformers")
    plainly = efficiency.plain()
    splits = []
    for context in config["bench"]["contexts"]:
        progress.say(f"passes of {context} tokens of context")
        splits.append({"context": context, **efficiency.split(context, TURNS * config["bench"]["repeat"])})
    progress.close()
    head = {"model": config["model"]["name"], "precision": backend.library.precision, "device": backend.device_name()}
    head |= {"attention": backend.attention(), "seats": deployment.max_num_seqs}
    return {**head, "splits": splits, "loop": loop, "plain": plainly}


def run(world: World, backend: Any) -> dict[str, float]:
    """The requests through the runtime, by the clock of the backend. `outside` is what no forward and no sampling took:
    runtime, driver, packing and bookkeeping, a pass."""
    first = backend.timer.mark()
    with rarely_collecting():
        world.driver.run(iter(world.workload))
    seconds, passes = backend.timer.seconds(first, backend.timer.mark()), backend.measurements()
    inside = sum(row["forward_s"] + row["sample_s"] for row in passes)
    column = list(TABLES["jobs"]).index("tokens_out")
    tokens = sum(row[column] for row in world.log.jobs)
    return {
        "requests": world.runtime.counts["offered"], "finished": world.runtime.counts["finished"],
        "output_tokens": tokens, "passes": len(passes), "seconds": seconds,
        "outside": (seconds - inside) / len(passes), "outside_share": 1 - inside / seconds,
    }  # fmt: skip


def checks_of(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Speed is reported, never judged: what must hold is that every request finished and, where transformers ran in
    fp32, that it continued each one with the same tokens."""
    loop, plainly = found["loop"], found["plain"]
    figures = {"every request finished": (loop["finished"], loop["requests"])}
    if plainly is not None and found["precision"] == "fp32":
        figures["transformers generates the same tokens"] = (plainly["alike"], plainly["sequences"])
    return [
        {
            "name": name, "figure": figure, "limit": limit, "unit": "requests", "passed": figure == limit,
            "detail": f"{loop['output_tokens']} tokens",
        }
        for name, (figure, limit) in figures.items()
    ]  # fmt: skip


def text_of(found: Mapping[str, Any]) -> str:
    """What the terminal shows."""
    head = f"{found['model']} in {found['precision']} on {found['device']}, attention {found['attention']['name']}, "
    return f"{head}{found['seats']} decodes a pass; milliseconds\n{markdown(found['splits'])}{sentences(found)}"


def markdown(splits: Sequence[Mapping[str, float]]) -> str:
    """A line a context."""
    head = [name.replace("_", " ") for name in COLUMNS]
    lines = [[format(scale * row[name], style) for name, (scale, style) in COLUMNS.items()] for row in splits]
    return "\n".join([f"| {' | '.join(line)} |" for line in (head, ["---:"] * len(head), *lines)]) + "\n"


def sentences(found: Mapping[str, Any]) -> str:
    """Throughput, and what the runtime took."""
    loop, plainly = found["loop"], found["plain"]
    speed = loop["output_tokens"] / loop["seconds"]
    said = [
        f"{loop['requests']} requests, {loop['output_tokens']:,} tokens in {loop['passes']} passes: "
        f"{loop['seconds']:.2f} s, {speed:.0f} tokens/s.",
        f"Outside of forward and sampling: {1e3 * loop['outside']:.2f} ms a pass, {100 * loop['outside_share']:.1f} %.",
    ]
    if plainly is None:
        return "\n".join(
            [*said, "No loop of transformers: pip install 'airi-sim[test]' brings it (dense models only)."]
        )
    other = loop["output_tokens"] / plainly["seconds"]
    said.append(
        f"transformers, one by one: {plainly['seconds']:.2f} s, {other:.0f} tokens/s: {speed / other:.1f} times."
    )
    return "\n".join(said)

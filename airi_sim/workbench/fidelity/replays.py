"""Two vLLM runs of 300 requests, replayed exactly: arrivals and lengths as they were, limits of the server as recorded.

The accelerator is fitted to the layer-wise timings of its card and nothing else; the engine is `serving=vllm` of conf
without its HTTP path, because the timestamps are the server's own. Prefix caching is on, vLLM's default: no two prompts
share anything, but who was preempted finds its prompt's blocks again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from airi_sim.core.types import Item, Request
from airi_sim.hardware.importers import read_ops
from airi_sim.hardware.physics import physics_profile
from airi_sim.workbench.fidelity.names import model_node
from airi_sim.workbench.fidelity.rows import Options, Row, Say
from airi_sim.workbench.fidelity.simulate import Times, setting, simulate
from airi_sim.workbench.objects import instantiate

BENCH = "fidelity/llmservingsim_bench"
NEEDS = (f"{BENCH}/runs.csv", "fidelity/ops")
CARDS = {"RTX4090": "rtx-4090", "RTXPRO6000": "rtx-pro-6000"}
BLOCK = 16
HTTP = ("request_s", "stream_s", "streamed_s")
"""Coefficients of the path that tokens take after the server's timestamp."""


@dataclass(frozen=True)
class Replay:
    """One run: its line of runs.csv and its requests in the order in which the server queued them."""

    card: str
    line: Mapping[str, Any]
    requests: pd.DataFrame

    @property
    def items(self) -> list[Item]:
        """Requests with prompts that nobody shares."""
        rows = enumerate(self.requests[["queued_s", "input_toks", "output_toks"]].itertuples(index=False))
        return [Item(_request(i, queued, int(tokens), int(out)), int(out)) for i, (queued, tokens, out) in rows]


def score(folder: Path, options: Options, progress: Say) -> list[Row]:
    """TTFT, time per output token and end-to-end time of each run whose card has timings; the mode is the card."""
    rows = []
    for replay in replays(folder):
        if options.chosen(replay.card):
            progress(f"{replay.card}, {len(replay.requests)} requests")
            rows += _rows(replay, predicted(replay, folder, options.config))
    return rows


def replays(folder: Path) -> list[Replay]:
    """The runs of the file."""
    table = pd.read_csv(folder / NEEDS[0])
    lines = [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
    return [Replay(str(line["hw"]), line, _requests(folder, line)) for line in lines if line["hw"] in CARDS]


def predicted(replay: Replay, folder: Path, base: Mapping[str, Any]) -> Times:
    """The run again, on the card as its op timings say."""
    config = setting(base, model=model_node(replay.line["model"], folder), accelerator=CARDS[replay.card])
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "profile.json"
        path.write_text(json.dumps(card_profile(replay.card, config, folder)))
        profile = {"_target_": "airi_sim.hardware.accelerator.calibrated", "path": str(path)}
        return simulate(engine(replay.line, {**config, "accelerator": profile}), replay.items, BLOCK)


def card_profile(card: str, config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What `airi calibrate` makes of the timings of a card."""
    model, device = instantiate(config["model"], "model"), instantiate(config["accelerator"], "accelerator")
    paths = sorted((folder / "fidelity" / "ops").glob(f"layerwise_{card}_*"))
    return physics_profile(read_ops(paths, device.name, config["precision"], model), device, config["precision"])


def engine(line: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """vLLM with the limits of the run; one block is set aside for padding."""
    blocks = line["num_gpu_blocks"]
    made = setting(
        config,
        serving="vllm",
        **{
            "pool.tp": int(line["tp"]),
            "pool.replicas": 1,
            "server.max_num_seqs": int(line["max_num_seqs"]),
            "server.max_num_batched_tokens": int(line["max_num_batched_tokens"]),
            "server.block_size": BLOCK,
            "server.kv_blocks": None if blocks != blocks else int(blocks) - 1,
            "server.prefix_caching": True,
        },
    )
    return setting(made, **{f"serving.{name}": 0.0 for name in HTTP})


def _requests(folder: Path, line: Mapping[str, Any]) -> pd.DataFrame:
    name = f"{line['hw']}__{str(line['model']).rpartition('/')[2]}.parquet"
    return pd.read_parquet(folder / BENCH / name).sort_values("queued_s", kind="stable")


def _request(i: int, queued: float, tokens: int, out: int) -> Request:
    """With ids of the blocks of a prompt that nobody shares."""
    return Request(i, queued, tokens, out, prefix=tuple(i << 20 | block for block in range(tokens // BLOCK)))


def _rows(replay: Replay, times: Times) -> list[Row]:
    seen = {name: replay.requests[f"{name}_ms"].to_numpy() / 1e3 for name in ("ttft", "tpot", "e2e")}
    model, accelerator = str(replay.line["model"]), CARDS[replay.card]
    figures = {
        "ttft_mean": (seen["ttft"].mean(), times.ttft.mean()),
        "tpot_mean": (seen["tpot"].mean(), np.nanmean(times.tpot)),
        "e2e_mean": (seen["e2e"].mean(), times.e2e.mean()),
        "e2e_p90": (np.percentile(seen["e2e"], 90), np.percentile(times.e2e, 90)),
    }
    return [
        Row(replay.card, model, accelerator, 1, "sharegpt", metric, float(measured), float(value), replay.card)
        for metric, (measured, value) in figures.items()
    ]

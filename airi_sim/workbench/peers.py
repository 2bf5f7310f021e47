"""Others on the same trace, in the same minute: NVIDIA's replay in Rust where it is installed, and a yardstick of the
user's. Each runs in a process of its own and says how many CPU seconds it took."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from airi_sim.core.errors import BadInput
from airi_sim.core.types import Item
from airi_sim.workbench.build import build
from airi_sim.workbench.cases import Case
from airi_sim.workload.data import find
from airi_sim.workload.jsonl import HASH_BLOCK
from airi_sim.workload.writer import write_jsonl

Peer = Callable[[], float]
"""Runs the trace of a case once and returns the CPU seconds it took."""

REPLAY = Path(__file__).with_name("dynamo_replay.py")
DYNAMO_BLOCK = 64
"""Tokens of a KV block in the replay: its own default."""
OWN_IDS, MOST_BLOCKS = 1 << 40, 1 << 16
"""Prefix ids of blocks that nobody shares: where they begin, and more than any prompt has."""


def peers_of(case: Case, config: Mapping[str, Any], bench: Mapping[str, Any], place: Path) -> dict[str, Peer]:
    """Who else can run the case, by name. `place` is for the files they need."""
    found: dict[str, Peer] = {}
    if bench["yardstick"] and case.source == "trace" and find(case.trace.path, config["data"]["dir"]).suffix == ".csv":
        found["yardstick"] = yardstick(bench["yardstick"], case)
    python = dynamo_python(bench["dynamo"])
    if python and not case.trace.long and set(case.variants) <= {"cache"}:
        found["dynamo"] = dynamo(python, case, config, place)
    return found


def yardstick(command: str, case: Case) -> Peer:
    """A command of the user's, for traces in CSV files; {trace} and {replicas} are filled in, and the number after the
    first word 'cpu' that it prints is its CPU seconds."""
    words = [word.format(trace=case.trace.path, replicas=case.trace.replicas) for word in shlex.split(command)]

    def run() -> float:
        text = printed(words, "bench.yardstick")
        told = re.search(r"\bcpu\s+([\d.]+)", text)
        if told is None:
            raise BadInput(f"bench.yardstick: {shlex.join(words)} does not print 'cpu SECONDS'.")
        return float(told[1])

    return run


def dynamo_python(wanted: str | None) -> str:
    """The interpreter that has ai-dynamo-runtime: as given, else this one (auto), else none (empty)."""
    if wanted != "auto":
        return wanted or ""
    try:
        return sys.executable if find_spec("dynamo._core") is not None else ""
    except ModuleNotFoundError:
        return ""


def dynamo(python: str, case: Case, config: Mapping[str, Any], place: Path) -> Peer:
    """NVIDIA's offline replay with its own cost model: the same requests, replicas, seats, batch tokens and memory."""
    world = build(config)
    path = place / f"{case.name}.jsonl"
    write_jsonl(map(with_ids, world.workload), path)
    deployment = world.generate.deployment
    engine = {
        "max_num_seqs": deployment.max_num_seqs,
        "max_num_batched_tokens": deployment.max_num_batched_tokens,
        "num_gpu_blocks": deployment.kv_blocks * deployment.block_size // DYNAMO_BLOCK,
        "block_size": DYNAMO_BLOCK,
        "enable_prefix_caching": deployment.prefix_caching,
    }
    words = [python, str(REPLAY), str(path), str(deployment.replicas), json.dumps(engine)]

    def run() -> float:
        told = json.loads(printed(words, "bench.dynamo"))
        if told["completed"] != told["requests"]:
            raise BadInput(f"bench.dynamo: of {told['requests']} requests {told['completed']} were completed.")
        return float(told["cpu_s"])

    return run


def with_ids(item: Item) -> Item:
    """The item with a prefix id for every block of its prompt, as Mooncake's format wants it: the missing ones are its
    own. Named traces have ids of `HASH_BLOCK` tokens, or none."""
    request = item.request
    first = OWN_IDS + request.id * MOST_BLOCKS + len(request.prefix)
    missing = -(-request.tokens // HASH_BLOCK) - len(request.prefix)
    request.prefix = (*request.prefix, *range(first, first + missing))
    return item


def printed(words: list[str], key: str) -> str:
    """What a command prints on stdout; BadInput with its last line of complaint if it fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BadInput(f"{key}: {words[0]} cannot be run ({error.strerror}).") from None
    if done.returncode:
        said = (done.stderr.strip() or "without a word").splitlines()[-1]
        raise BadInput(f"{key}: {shlex.join(words)} failed: {said}.")
    return done.stdout

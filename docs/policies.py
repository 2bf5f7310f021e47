"""The tables of policies.md: `make docs`, or `python docs/policies.py`.

A row a yaml of conf/policy and conf/predictor: the rule is the first paragraph of the docstring of its class, sources
are what stands there in parentheses and has a year or an arXiv number, parameters are the keys of the yaml with their
remarks. Whoever adds a policy writes these two and runs this.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from airi_sim.workbench.plugins import find_class, group_node

ROOT = Path(__file__).parents[1]
DOCUMENT = Path(__file__).with_name("policies.md")
SOURCE = re.compile(r" ?\(([^()]*(?:\b(?:19|20)\d\d\b|arXiv|HPL-)[^()]*)\)")
KEY = re.compile(r"^(?P<name>[a-z]\w*): (?P<value>.*?)(?:\s+# (?P<remark>.*))?$", re.MULTILINE)
HEAD = """# Policies

Every policy there is, from its docstring and its yaml (`make docs` writes this file anew). One is chosen by
`policy/KIND=NAME` on the command line, its parameters are `policy.KIND.PARAMETER=VALUE`; how to write one of your own:
[extending.md](extending.md). What some of them do on a trace: [validation.md](validation.md).

"For how long" is what a queue or a batcher promises about its answers, so that many passes can be simulated at once:
*timeless*: only arrivals, departures and evictions change them; *horizon*: it says until when they hold; *greedy*: a
pass that admits nobody stays so until somebody stops, comes or is evicted. *makes way*: under
`policy/batcher=preemptive` running jobs make way for its head, *overtakes*: prompts under way do. `check_policy` holds
every one of these claims against passes simulated one by one.
"""
TITLES = {
    "router": "Routers: which replica",
    "queue": "Queues: who is next",
    "batcher": "Batchers: what runs in the next pass",
    "evictor": "Evictors: whose memory goes when a block is missing",
    "cache": "Caches: which cached prefix goes",
    "admission": "Admission: may this job enter",
    "fault": "Faults: what becomes of a job whose server died",
    "model_router": "Model routers: which pool",
    "placement": "Placements: which models are in memory",
    "predictor": "Predictors: how long will the output be (`policy.queue.predictor=NAME`)",
}


def document() -> str:
    """The whole of policies.md."""
    return "\n".join([HEAD, *(section(kind) for kind in TITLES)])


def section(kind: str) -> str:
    """The table of one kind."""
    group = "predictor" if kind == "predictor" else f"policy/{kind}"
    timed = kind in ("queue", "batcher")
    head = ["name", "class", "rule", "source", "parameters", *["for how long"] * timed]
    rows = [row(group, path, timed) for path in sorted((ROOT / "conf" / group).glob("*.yaml"))]
    return "\n".join([f"## {TITLES[kind]}\n", *map(line, [head, ["---"] * len(head), *rows]), ""])


def row(group: str, path: Path, timed: bool) -> list[str]:
    """The cells of one policy."""
    cls = find_class(group_node(group, path.stem)["_target_"], group)
    paragraphs = [" ".join(part.split()) for part in inspect.cleandoc(cls.__doc__ or "").split("\n\n")]
    sources = "; ".join(SOURCE.findall(" ".join(paragraphs)))
    file = Path(inspect.getfile(cls)).relative_to(ROOT).as_posix()
    name = f"[`{path.stem}`](../{path.relative_to(ROOT).as_posix()})"
    cells = [
        name,
        f"[`{cls.__name__}`](../{file})",
        SOURCE.sub("", paragraphs[0]),
        sources,
        "<br>".join(parameters(path)),
    ]
    return [*cells, *[", ".join(claims(cls))] * timed]


def parameters(path: Path) -> Iterator[str]:
    """Keys of the yaml, each with its value and what the remark behind it says."""
    for found in KEY.finditer(path.read_text()):
        remark = f" ({found['remark']})" if found["remark"] else ""
        yield f"`{found['name']}={found['value']}`{remark}"


def claims(cls: type) -> Iterator[str]:
    """What it promises of its answers over time, and whether running jobs make way for its head."""
    for word, name in {"timeless": "timeless", "greedy": "greedy"}.items():
        if getattr(cls, name, False):
            yield word
    for word, name in {"horizon": "stable", "makes way": "contest", "overtakes": "overtakes"}.items():
        if callable(getattr(cls, name, None)):
            yield word


def line(cells: list[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main() -> None:
    """Write the document."""
    DOCUMENT.write_text(document())
    print(f"tables: {DOCUMENT}")


if __name__ == "__main__":
    main()

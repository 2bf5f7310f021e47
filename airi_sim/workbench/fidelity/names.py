"""Names in recordings and what they are called here: models by their published configs, accelerators by their yaml."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from airi_sim.core.errors import BadInput
from airi_sim.workbench.paths import options
from airi_sim.workbench.plugins import group_node

TWINS = {"instruct", "base", "chat", "hf", "it", "meta", "dynamic", "fp8", "bf16", "hbm3", "nvidia", "gpu"}
"""Words that do not tell one architecture, or one accelerator, from another."""
SIZE = re.compile(r"^(\d+x)?\d+(\.\d+)?[bm]$|^a\d+b$|^\d+e$")


def words(name: str) -> set[str]:
    """The words of a name that matter, in lower case."""
    found = re.split(r"[-_/\s]+", re.sub(r"(\d)gb\b", r"\1", name.lower()))
    return {word for word in found if word and word not in TWINS}


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that says the same: no size of it may be missing in `name` or differ, the first word of `name`
    after the owner must be there, and most words are shared."""
    asked = words(name)
    first = next((word for word in re.split(r"[-_\s]+", name.rpartition("/")[2].lower()) if word not in TWINS), "")

    def fits(candidate: str) -> bool:
        found = words(candidate)
        sizes = {word for word in found if SIZE.match(word)}
        own = {word for word in asked if SIZE.match(word)}
        return first in found and (sizes <= asked or not own)

    fitting = [candidate for candidate in known if fits(candidate)]
    return max(fitting, key=lambda one: (len(words(one) & asked), -len(words(one) - asked)), default=None)


def model_node(name: str, folder: Path) -> dict[str, Any]:
    """The config node of a model by its Hugging Face name: its config.json below `folder`, else one of conf/model."""
    files = {path.stem.replace("--", "/", 1): path for path in sorted((folder / "models").glob("*.json"))}
    file = nearest(name, files)
    if file is not None:
        return {**group_node("model", "hf"), "name": name, "config": str(files[file])}
    choice = nearest(name, options("model"))
    if choice is None:
        raise BadInput(f"there is no config of model '{name}': put its config.json into the folder models.")
    return group_node("model", choice)


def accelerator_name(name: str) -> str:
    """The choice of conf/accelerator that a recording calls `name`; BadInput if there is none."""
    choice = nearest(name, options("accelerator"))
    if choice is None:
        raise BadInput(f"accelerator '{name}' is none of conf/accelerator: {', '.join(options('accelerator'))}.")
    return choice

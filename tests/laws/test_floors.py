"""Decisions read no clock and draw no global randomness: the part of the floors that import-linter cannot see."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SANS_IO = ("airi_sim/core", "airi_sim/policies", "airi_sim/runtime")
FORBIDDEN = {
    "asyncio", "concurrent", "datetime", "multiprocessing", "sched", "secrets", "simpy", "socket", "subprocess",
    "threading", "time", "torch", "uuid",
}  # fmt: skip
SEEDED = {"Random", "Generator", "default_rng"}  # classes and makers that take a seed; the rest is global state
RANDOM_MODULES = {"random", "numpy.random"}


def imports(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """(line, what is imported in full, the name it gets), wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, alias.asname or alias.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}", alias.asname or alias.name


def dotted(node: ast.AST, names: dict[str, str]) -> str:
    """`np.random.rand` as `numpy.random.rand`, given that np is numpy; "" for anything else."""
    if isinstance(node, ast.Name):
        return names.get(node.id, "")
    if isinstance(node, ast.Attribute):
        whole = dotted(node.value, names)
        return f"{whole}.{node.attr}" if whole else ""
    return ""


def is_global_random(name: str) -> bool:
    module, _, member = name.rpartition(".")
    return module in RANDOM_MODULES and member not in SEEDED


def impurities(source: str) -> list[str]:
    """Every clock, world or global random number that this source reaches for, with its line."""
    tree = ast.parse(source)
    names: dict[str, str] = {}
    found = []
    for line, name, bound in imports(tree):
        names[bound] = name if bound not in name.split(".")[:1] else bound
        if name.partition(".")[0] in FORBIDDEN:
            found.append(f"line {line}: imports {name}")
        elif is_global_random(name) and name not in RANDOM_MODULES:
            found.append(f"line {line}: imports {name}, which is not seeded")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_global_random(name := dotted(node, names)):
            found.append(f"line {node.lineno}: uses {name}, which is not seeded")
    return found


def sources() -> list[Path]:
    return sorted(path for folder in SANS_IO for path in (ROOT / folder).rglob("*.py"))


def test_there_is_something_to_check() -> None:
    assert {path.parent.name for path in sources()} >= {"core", "policies", "runtime"}


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_decisions_are_pure(path: Path) -> None:
    assert impurities(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "import datetime as dt",
        "from time import perf_counter",
        "import simpy",
        "from simpy.events import Event",
        "def late():\n    import torch.nn",
        "import threading",
        "import asyncio.queues",
        "import random\nx = random.random()",
        "import random as r\nr.shuffle([])",
        "import random\npick = random.choice",
        "from random import choice",
        "import numpy as np\nnp.random.seed(1)",
        "import numpy\nnumpy.random.rand(3)",
        "from numpy import random\nrandom.normal()",
        "from numpy.random import shuffle",
        "import numpy.random as npr\nnpr.uniform()",
    ],
)
def test_a_scratch_policy_that_cheats_is_caught(source: str, tmp_path: Path) -> None:
    scratch = tmp_path / "my_policy.py"
    scratch.write_text(source)
    assert len(impurities(scratch.read_text())) == 1


@pytest.mark.parametrize(
    "source",
    [
        "import random\ndraw = random.Random(7).random",
        "from random import Random\nRandom(7).choice([1])",
        "import numpy as np\nrng = np.random.default_rng(7)\nrng.random()",
        "from airi_sim.core.types import Job\nJob.random",
        "class A:\n    def f(self):\n        return self.random.random()",
    ],
)
def test_seeded_randomness_is_allowed(source: str) -> None:
    assert impurities(source) == []

"""`airi VERB --multirun key=a,b`: one run for each combination, each in a numbered folder of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path

from hydra.core.override_parser.types import Glob, Override
from omegaconf import DictConfig

from airi_sim.core.errors import BadInput
from airi_sim.results.text import headline
from airi_sim.workbench.config import load_config, parse
from airi_sim.workbench.folders import run_folder
from airi_sim.workbench.paths import options


def multirun(command: Callable[..., int], overrides: Sequence[str], show: bool = False) -> int:
    """Run every combination and print a line each; returns the worst exit code.

    All configs are checked before the first one runs. The folders lie in `hydra.run.dir`. Bad input
    names the combination it is about.
    """
    jobs = combinations(overrides)
    configs = [_checked(fixed, varied) for fixed, varied in jobs]
    lines = []
    worst = 0
    with run_folder(configs[0], [*jobs[0][0], *jobs[0][1]]) as above:
        for number, (fixed, varied) in enumerate(jobs):
            folder = above / str(number)
            print(f"== {number + 1}/{len(jobs)}: {' '.join(varied)} ==", flush=True)
            with _naming(varied):
                worst = max(worst, command([*fixed, *varied, f"hydra.run.dir={_quoted(folder)}"], show=show))
            lines.append(f"{folder}  {' '.join(varied)}  {_figures(folder)}")
    if not show:
        print("\n" + "\n".join(lines))
    return worst


def _checked(fixed: list[str], varied: list[str]) -> DictConfig:
    with _naming(varied):
        return load_config([*fixed, *varied])


@contextmanager
def _naming(varied: Sequence[str]) -> Iterator[None]:
    """BadInput raised inside says which of the combinations it is about."""
    try:
        yield
    except BadInput as error:
        if not varied:
            raise
        raise BadInput(f"{' '.join(varied)}: {error}") from error


def combinations(overrides: Sequence[str]) -> list[tuple[list[str], list[str]]]:
    """Of each run: the overrides all have in common, and its own; the last key varies fastest."""
    parsed = parse(overrides)
    sweeps = [override for override in parsed if override.is_sweep_override()]
    fixed = [str(override.input_line) for override in parsed if not override.is_sweep_override()]
    return [(fixed, list(varied)) for varied in product(*[_values(override) for override in sweeps])]


def _values(override: Override) -> list[str]:
    """key=value for each value of a sweep: a,b or choice(), range(), glob() of a group."""
    if override.is_interval_sweep():
        raise BadInput(f"{override.input_line}: an interval has no values to run; give them one by one, or range().")
    key, value = override.get_key_element(), override.value()
    if isinstance(value, Glob):
        found = [f"{key}={name}" for name in value.filter(options(override.key_or_group))]
        if not found:
            raise BadInput(
                f"{override.input_line} fits nothing: there are {', '.join(options(override.key_or_group))}."
            )
        return found
    return [f"{key}={text}" for text in override.sweep_string_iterator()]


def _quoted(folder: Path) -> str:
    """A path as a value of Hydra's grammar."""
    return "'" + str(folder).replace("\\", "\\\\").replace("'", "\\'") + "'"


def _figures(folder: Path) -> str:
    """The headline figures of a run folder on one line; nothing where a verb writes other things."""
    file = folder / "summary.json"
    if not file.is_file():
        return ""
    return ", ".join([f"{name} {text}" for name, text in headline(json.loads(file.read_text()))])

"""Where the configuration lies: beside the packages in a checkout, inside the package once installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from airi_sim.core.errors import unknown

PACKAGE = Path(__file__).resolve().parents[1]


def conf_dir() -> Path:
    """The folder of the config groups."""
    inside = PACKAGE / "conf"
    return inside if inside.is_dir() else PACKAGE.parent / "conf"


def options(group: str) -> list[str]:
    """The choices of a config group."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def subgroups(group: str) -> list[str]:
    """The groups inside a group; of "" those at the top."""
    folder = conf_dir() / group
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def choice(group: str, name: str) -> Any:
    """The yaml of one choice of a group as plain values. Other yamls name it as ${choice:GROUP,NAME}, so that a link is
    written once for all nodes, and a node once for all accelerators. BadInput names what there is."""
    if name not in options(group):
        raise unknown(group.split("/")[-1], name, options(group))
    return OmegaConf.to_container(OmegaConf.load(conf_dir() / group / f"{name}.yaml"), resolve=True)


OmegaConf.register_new_resolver("choice", choice, replace=True)

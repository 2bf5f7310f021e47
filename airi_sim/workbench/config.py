"""Command-line overrides to one checked config, with errors that say what exists and what is nearest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from airi_sim.core.errors import BadInput, unknown
from airi_sim.workbench.paths import conf_dir, options
from airi_sim.workbench.schema import check


def load_config(overrides: Sequence[str]) -> DictConfig:
    """Compose `conf/config.yaml` with the overrides of a command line (Hydra's grammar) and check every value.

    Keys under `policy.` are open: `policy.queue._target_=my_module.MyQueue policy.queue.patience=2` works without a
    plus sign, and a new `_target_` drops the arguments of the old class.
    """
    parsed = _parse(overrides)
    texts = [_opened(override) for override in parsed]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            config = compose("config", overrides=texts, return_hydra_config=True)
        OmegaConf.set_struct(config, False)
        _drop_old_arguments(config, parsed)
        OmegaConf.resolve(config.hydra.run)
    except HydraException as error:
        raise _explained(error) from None
    except OmegaConfBaseException as error:
        raise BadInput(f"the configuration does not hold together: {_first_line(error)}.") from None
    check(config)
    return config


def _parse(overrides: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        text = next((o for o in overrides if "=" not in o), "") or _first_line(error)
        raise BadInput(
            f"cannot read the override '{text}': write key=value (airi run --help lists the keys)."
        ) from None


def _is_policy_key(override: Override) -> bool:
    return override.key_or_group.startswith("policy.")


def _opened(override: Override) -> str:
    """Keys under policy.* may be new: Hydra wants a plus sign for that, users should not have to know."""
    text = str(override.input_line)
    if override.is_delete() or not _is_policy_key(override):
        return text
    return "++" + text.lstrip("+")


def _drop_old_arguments(config: DictConfig, overrides: list[Override]) -> None:
    """A new `_target_` starts with the arguments of the command line only."""
    given = {override.key_or_group for override in overrides if _is_policy_key(override)}
    for key in given:
        if key.endswith("._target_"):
            node = OmegaConf.select(config, key.removesuffix("._target_"))
            for name in [str(name) for name in node]:
                if f"{key.removesuffix('_target_')}{name}" not in given:
                    del node[name]


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")


def _explained(error: Exception) -> BadInput:
    text = str(error)
    choice = re.search(r"Could not find '([\w/-]+)/([^/']+)'", text)
    if choice and options(choice[1]):
        return unknown(choice[1].split("/")[-1], choice[2], options(choice[1]))
    key = re.search(r"Could not override '([^']+)'", text) or re.search(r"Key '([^']+)' is not in struct", text)
    if key:
        return _unknown_key(key[1])
    return BadInput(f"the configuration does not hold together: {_first_line(error)}.")


def _unknown_key(key: str) -> BadInput:
    config = OmegaConf.load(conf_dir() / "config.yaml")
    group, _, leaf = key.rpartition(".")
    node: Any = OmegaConf.select(config, group) if group else config
    names = [str(name) for name in node] if isinstance(node, DictConfig) else []
    if not names and options(group):
        names = sorted({str(name) for option in options(group) for name in _keys(group, option)})
    if not group:
        names = [*[n for n in names if n not in ("defaults", "hydra")], "workload", "model", "accelerator", "policy"]
    error = unknown("key", leaf, names or ["(nothing)"])
    return BadInput(f"'{key}': {error}")


def _keys(group: str, option: str) -> list[str]:
    node = OmegaConf.load(conf_dir() / group / f"{option}.yaml")
    return [str(name) for name in node if not str(name).startswith("_")]


def plain(config: DictConfig) -> dict[str, Any]:
    """The config as plain values, everything resolved, Hydra's own part left out."""
    values = OmegaConf.to_container(
        OmegaConf.masked_copy(config, [str(k) for k in config if k != "hydra"]), resolve=True
    )
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def show_config(config: DictConfig) -> int:
    """Print the composed config (`--cfg`)."""
    print(OmegaConf.to_yaml(OmegaConf.create(plain(config))), end="")
    return 0

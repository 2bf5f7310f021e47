"""Command-line overrides to one checked config, with errors that say what exists and what is nearest."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from airi_sim.core.errors import BadInput, unknown
from airi_sim.workbench.annotations import shown, unknown_key
from airi_sim.workbench.paths import conf_dir, options, subgroups
from airi_sim.workbench.schema import check, defaults


def load_config(overrides: Sequence[str]) -> DictConfig:
    """Compose `conf/config.yaml` with the overrides of a command line (Hydra's grammar) and check every value.

    Keys under `policy.` are open: `policy.queue._target_=my_module.MyQueue policy.queue.patience=2` works without a
    plus sign, and a new `_target_` drops the arguments of the old class.
    """
    parsed = parse(overrides)
    for override in parsed:
        _check_override(override)
    try:
        config = _composed([text for override in parsed for text in _opened(override)])
        OmegaConf.set_struct(config, False)
        _drop_old_arguments(config, parsed)
        _check_added(parsed)
        OmegaConf.resolve(config.hydra.run)
    except (HydraException, OmegaConfBaseException) as error:
        raise _explained(error, parsed) from error
    check(config)
    return config


def _composed(overrides: list[str]) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", overrides=overrides, return_hydra_config=True)


def parse(overrides: Sequence[str]) -> list[Override]:
    """Overrides in Hydra's grammar; BadInput for the first that is not."""
    parser = OverridesParser.create()
    found = []
    for text in overrides:
        try:
            found += parser.parse_overrides([text])
        except HydraException as error:
            raise _unreadable(text) from error
        if not found[-1].key_or_group:
            raise _unreadable(text)
    return found


def _unreadable(text: str) -> BadInput:
    return BadInput(
        f"cannot read the override '{text}': write key=value, and quotes inside the shell's quotes around a value that "
        "holds = , : or brackets, as in 'key=\"a=b\"' (airi run --help lists the keys)."
    )


def _check_override(override: Override) -> None:
    """One value a key, and of a group one of its choices; Hydra would fail on anything else in its own words."""
    group = override.key_or_group
    known = options(group)
    if re.match(r"hydra\b", group) and group != "hydra.run.dir":
        raise BadInput(
            f"unknown key '{group}': the only one of Hydra's own is hydra.run.dir, the folder of the run (with "
            "--multirun the folder in which each run has a numbered one)."
        )
    if override.is_sweep_override():
        raise BadInput(
            f"{override.input_line} has several values: 'airi run --multirun' runs each; quotes make it one."
        )
    if "." in group:
        return
    if known and (override.is_delete() or not isinstance(override.value(), str)):
        given = "nothing" if override.is_delete() else shown(override.value())
        raise BadInput(f"{group} needs one of its choices, not {given}: {', '.join(known)}.")
    if not known and subgroups(group):
        raise BadInput(f"{group}={shown(override.value())}: name a part, as in {group}/{subgroups(group)[0]}=NAME.")
    parent, slash, _ = group.rpartition("/")
    if not known and slash:
        raise unknown("group", group, [f"{parent}/{name}" for name in subgroups(parent)] or subgroups(""))


def _check_added(overrides: list[Override]) -> None:
    """+key=value adds what no yaml has; at the top nobody would read it, so it is a typing error."""
    added = [o.key_or_group.partition(".")[0] for o in overrides if o.is_add() or o.is_force_add()]
    if not all(key in defaults() or key in subgroups("") or key == "hydra" for key in added):
        known = _composed(_choices(overrides))
        for key in added:
            if key not in known:
                raise unknown_key("", key, _names(known))


def _choices(overrides: list[Override]) -> list[str]:
    """The overrides that choose from groups."""
    return [str(o.input_line) for o in overrides if options(o.key_or_group) and not o.is_delete()]


def _names(node: Any) -> list[str]:
    """The keys of a section."""
    if not isinstance(node, DictConfig) or node._is_none():
        return []
    return sorted(str(name) for name in node if name not in ("hydra", "_target_", "_convert_"))


NAMED_BY_USERS = ("pools", "workload.tenants", "workload.models", "memory.bytes", "compare.policies", "study.policies")
"""Sections whose keys are names that users give."""


CHECKED_LATER = ("accelerator.", "serving.")
"""Sections that hold arguments of one constructor, which knows its optional ones; a yaml need not list them."""


CONSTANTS = re.compile(r"services\.\w+\.service(\.|$)")
"""Constants of a service; which there are, whoever makes its pool knows."""


def _is_policy_key(override: Override) -> bool:
    return override.key_or_group.startswith("policy.")


def _opened(override: Override) -> list[str]:
    """Keys may be new under policy.*, where a constructor checks them, and where one names things: Hydra wants a plus
    sign for that, users should not have to know. A whole mapping of named things takes the place of the old one, where
    Hydra would merge the two."""
    text, key = str(override.input_line), override.key_or_group
    opened = key.startswith((*NAMED_BY_USERS, *CHECKED_LATER)) or CONSTANTS.match(key) or _is_policy_key(override)
    if override.is_delete() or not opened:
        return [text]
    if key in NAMED_BY_USERS:
        return [f"++{key}=null", "++" + text.lstrip("+")]
    return ["++" + text.lstrip("+")]


def _drop_old_arguments(config: DictConfig, overrides: list[Override]) -> None:
    """A new `_target_` starts with the arguments of the command line only."""
    given = {key for override in overrides if _is_policy_key(override) for key in _keys_given(override)}
    for key in given:
        node = OmegaConf.select(config, key.removesuffix("._target_"))
        if key.endswith("._target_") and isinstance(node, DictConfig):
            for name in [str(name) for name in node]:
                if f"{key.removesuffix('_target_')}{name}" not in given:
                    del node[name]


def _keys_given(override: Override) -> list[str]:
    """The keys an override sets: its own, or those of the mapping it holds."""
    key, value = override.key_or_group, None if override.is_delete() else override.value()
    return [f"{key}.{name}" for name in value] if isinstance(value, Mapping) else [key]


def _explained(error: Exception, overrides: list[Override]) -> BadInput:
    text = str(error)
    choice = re.search(r"Could not find '([\w/-]+)/([^/']+)'", text)
    if choice and options(choice[1]):
        return unknown(choice[1], choice[2], options(choice[1]))
    part = re.search(r"Could not override '([^']+)'. No match in the defaults list", text)
    if part:
        return BadInput(f"{part[1]} is no choice of a whole run: name it where it is a part, as in ...{part[1]}=NAME.")
    key = re.search(r"Could not (?:override|delete)[^']*'([^']+)'", text) or re.search(r"Key '([^']+)' is not in", text)
    if key:
        return _unknown_key(key[1], overrides)
    merge = re.search(r"Error merging override ([^=\s]+)", text)
    if merge:
        return BadInput(f"{merge[1]} cannot have that value ({str(error.__cause__).splitlines()[0]}).")
    return _incoherent(error)


def _incoherent(error: Exception) -> BadInput:
    text = str(error).strip() or str(error.__cause__).strip()
    key = re.search(r"full_key: (\S+)", text)
    return BadInput(
        f"the configuration does not hold together{f' at {key[1]}' if key else ''}: "
        f"{(text.splitlines() or [type(error).__name__])[0].rstrip('.')}."
    )


def _unknown_key(key: str, overrides: list[Override]) -> BadInput:
    """What there is beside it, given the choices of the groups on the same command line."""
    config = _composed(_choices(overrides))
    parent, _, leaf = key.rpartition(".")
    names = _names(OmegaConf.select(config, parent) if parent else config)
    return unknown_key(parent, leaf, names) if names else _unknown_key(parent, overrides)


def plain(config: DictConfig) -> dict[str, Any]:
    """The config as plain values, everything resolved, Hydra's own part left out."""
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    try:
        values = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise _incoherent(error) from error
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def show_config(config: DictConfig) -> int:
    """Print the composed config (`--cfg`)."""
    print(OmegaConf.to_yaml(OmegaConf.create(plain(config))), end="")
    return 0

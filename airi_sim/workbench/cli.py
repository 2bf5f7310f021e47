"""The `airi` command: a verb, then Hydra overrides. 0 = done, 1 = a check failed, 2 = bad input (one sentence)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from signal import SIGINT

from airi_sim.core.errors import BadInput, unknown

VERBS = {
    "run": "one run: simulated (default) or measured (backend=torch)",
    "compare": "the same config simulated and measured, side by side",
    "calibrate": "measure the device at hand and write a hardware profile",
    "study": "policies x loads x seeds on common random numbers, with paired intervals",
    "validate": "validate=theory: closed forms of queueing theory; validate=parity: a measured run replayed, decision "
    "by decision; validate=fidelity: recorded runs scored",
    "bench": "speed of the engine on named traces",
    "report": "(re)build the HTML report of run folders: airi report DIR...",
}
FLAGS = {
    "--debug": "show tracebacks",
    "--cfg": "print the config and stop",
    "--multirun": "(-m) several values a key, key=a,b: one run for each combination",
    "--version": "print the version",
    "--help": "(-h) this",
}
SHORT = {"-h": "--help", "-m": "--multirun", "-c": "--cfg", "--resolve": "--cfg"}
"""Other spellings; configs are always shown resolved."""
EXAMPLES = (
    "workload=poisson workload.rate=8 pool.replicas=2 policy/router=p2c",
    "workload=trace workload.path=trace.csv model=llama-3.1-8b accelerator=h100-sxm",
    "policy.queue._target_=my_module.MyQueue policy.queue.patience=2.0",
)
Command = Callable[..., int]
"""Of a verb: `command(overrides, show) -> exit code`; `show` prints the config instead."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words or os.environ.get("HYDRA_FULL_ERROR") == "1"
    try:
        return _dispatch(words)
    except BrokenPipeError:  # `airi ... | head`: whoever read has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, KeyboardInterrupt) as error:
        stop = _interrupt(error)
        if stop is not None:
            print(f"airi: {str(stop) or 'interrupted; nothing was written that is not complete'}.", file=sys.stderr)
            return 128 + getattr(stop, "signal", SIGINT)
        if debug or not isinstance(error, BadInput):
            raise
        print(f"airi: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _interrupt(error: BaseException | None) -> KeyboardInterrupt | None:
    """What stopped the command, if the user did. Where OmegaConf tidies up after an interrupt it may fail; what comes
    out then is an error of its own, with the interrupt behind it."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error


def _dispatch(words: list[str]) -> int:
    flags, rest = _split(words)
    if "--version" in flags:
        from airi_sim import __version__

        print(f"airi_sim {__version__}")
        return 0
    if not rest:
        print(usage(), file=sys.stdout if "--help" in flags else sys.stderr)
        return 0 if "--help" in flags else 2
    verb, overrides = rest[0], rest[1:]
    if verb not in VERBS:
        raise unknown("verb", verb, VERBS)
    if "--help" in flags:
        print(help_of(verb))
        return 0
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    command: Command = import_module(f"airi_sim.workbench.verbs.{verb}").command
    if "--multirun" in flags:
        from airi_sim.workbench.multirun import multirun

        return multirun(command, overrides, show="--cfg" in flags)
    return int(command(overrides, show="--cfg" in flags))


def _split(words: Sequence[str]) -> tuple[set[str], list[str]]:
    """Flags, and everything else. `--cfg job`, as Hydra spells it, is `--cfg`."""
    flags, rest = set(), []
    for before, word in zip(["", *words], words, strict=False):
        name = SHORT.get(word, word)
        if name in FLAGS:
            flags.add(name)
        elif word.startswith("-"):
            raise unknown("flag", word, FLAGS)
        elif not (SHORT.get(before, before) == "--cfg" and word in ("job", "all")):
            rest.append(word)
    return flags, rest


def usage() -> str:
    """What `airi` alone prints."""
    verbs = "\n".join([f"  {name:10} {what}" for name, what in VERBS.items()])
    return f"usage: airi VERB [key=value ...]\n\n{verbs}\n\nairi VERB --help lists groups and keys."


def help_of(verb: str) -> str:
    """Groups with their choices, and every key with its default."""
    from airi_sim.workbench.paths import conf_dir, options

    groups = sorted({str(path.parent.relative_to(conf_dir())) for path in conf_dir().glob("*/**/*.yaml")})
    lines = [f"airi {verb}: {VERBS[verb]}", "", "groups (group=choice):"]
    lines += [f"  {group}: {', '.join(options(group))}" for group in groups]
    keys = (conf_dir() / "config.yaml").read_text().split("\nseed:", 1)[1].split("\nhydra:")[0]
    lines += ["", "keys (key=value) and defaults:", "  seed:" + keys.replace("\n", "\n  ").rstrip()]
    lines += ["  hydra.run.dir: where the run folder goes", "", "flags:"]
    lines += [f"  {name:10} {what}" for name, what in FLAGS.items()]
    lines += ["", "examples:", *[f"  airi {verb} {text}" for text in EXAMPLES]]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

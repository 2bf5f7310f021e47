"""Errors a user can act on. Each message is one sentence that says what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class BadInput(Exception):
    """The user's input cannot be used; the command ends with exit code 2 and this message."""


class PolicyError(BadInput):
    """A policy broke a rule of its protocol; the message names the policy and the rule."""


def unknown(what: str, name: str, known: Iterable[str]) -> BadInput:
    """The usual answer to an unknown name: what exists, and the nearest spelling."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    return BadInput(f"unknown {what} '{name}': there are {', '.join(names)}{hint}")

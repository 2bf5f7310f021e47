"""The cost of passes on a device that was measured: a calibration profile in closed form."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from airi_sim.core.errors import BadInput
from airi_sim.core.types import Affine, Plan
from airi_sim.hardware.features import DECODES, names, ramps
from airi_sim.hardware.fit import FORMAT, PASSES, is_ragged
from airi_sim.hardware.physics import PHYSICS, incomplete
from airi_sim.hardware.service import SERVICE, ServiceCost, constants_of, many
from airi_sim.hardware.table import Table


class FittedCost:
    """Seconds of a generate pass, equal to features . coefficients of `profile` (see features.py).

    Where decodes are padded to whole blocks of the longest context, a pass costs the same until the longest crosses a
    block boundary: `affine` answers step 0 for the passes until then. Where attention is ragged, contexts grow by a
    token a pass. BadInput if the profile lacks the section.
    """

    __slots__ = (
        "_attention", "_block", "_context", "_decodes", "_padded", "_ragged", "_sequences", "_slices", "_tokens",
        "notes",
    )  # fmt: skip

    needs_longest = True

    def __init__(self, profile: Mapping[str, Any], kind: str = "generate") -> None:
        section = _section(profile, kind)
        found, knots = section["coefficients"], section["knots"]
        line = [found[name] for name in names(knots)[: len(knots)]]
        self._tokens = Table(lambda n: sum(c * x for c, x in zip(line, ramps(n, knots), strict=True)))
        self._block: int = profile["block_size"]
        self._ragged = is_ragged(profile)
        self._sequences: float = found["sequences"]
        self._padded: float = found["padded_context"]
        self._attention: float = found["prefill_attention"]
        self._context: float = found["prefill_context"]
        self._slices: float = found["slices"]
        self._decodes: float = found.get(DECODES, 0.0)
        self.notes: tuple[str, ...] = ()

    def affine(self, plan: Plan) -> Affine:
        """Pass i takes `first`, until the padding grows. About 1 us."""
        n = plan.sequences
        first = self._tokens[n + plan.prefill_tokens]
        if plan.slices:
            first += self._attention * plan.prefill_attention + self._context * plan.prefill_context
            first += self._slices * len(plan.slices)
        if not n:
            return Affine(first)
        first += self._decodes
        if self._ragged:
            attended = self._padded * (plan.context + n)
            return Affine(first + n * self._sequences + attended, n * self._padded)
        longest = plan.longest
        padded = (longest // self._block + 1) * self._block
        return Affine(first + n * (self._sequences + self._padded * padded), 0.0, padded - longest)


def service_from(profile: Mapping[str, Any], kind: str) -> ServiceCost:
    """The measured cost of a service; BadInput if `profile` has none of that kind."""
    return ServiceCost(**constants_of(_section(profile, kind)), many=many(kind))


def load_profile(path: str | Path) -> dict[str, Any]:
    """A profile from its file; BadInput when it is missing, is not JSON, or is not complete."""
    advice = "make one with 'airi calibrate'."
    try:
        profile = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError:
        raise BadInput(f"cannot read the calibration profile '{path}': {advice}") from None
    except ValueError as error:
        raise BadInput(f"the calibration profile '{path}' is not valid JSON ({error}): {advice}") from None
    problem = _problem(profile)
    if problem:
        raise BadInput(f"'{path}' is not a calibration profile: {problem}; {advice}")
    return dict(profile)


def _section(profile: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    section = profile["kinds"].get(kind)
    if section is None:
        measured = ", ".join(sorted(profile["kinds"]))
        raise BadInput(f"the calibration profile has no '{kind}' section (it has {measured}): calibrate that kind too.")
    return section


def _problem(profile: Any) -> str:
    """What is wrong with it, or nothing."""
    if not isinstance(profile, dict) or profile.get("format") not in (FORMAT, PHYSICS):
        return f"its format is neither '{FORMAT}' nor '{PHYSICS}'"
    if profile["format"] == PHYSICS:
        return incomplete(profile)
    missing = [key for key in ("device", "model", "precision", "block_size", "kinds") if key not in profile]
    if missing:
        return f"it lacks {', '.join(missing)}"
    if not isinstance(profile["block_size"], int) or profile["block_size"] < 1:
        return "its block_size is not a whole number of at least 1"
    if not isinstance(profile["kinds"], dict) or not profile["kinds"]:
        return "it has no kinds"
    return next(filter(None, (_incomplete(*item) for item in profile["kinds"].items())), "")


def _incomplete(kind: str, section: Any) -> str:
    if not isinstance(section, dict):
        return f"kind '{kind}' is not an object"
    wanted: Sequence[str] = SERVICE
    values = section
    if kind in PASSES:
        knots, values = section.get("knots", []), section.get("coefficients", {})
        if not _rising(knots) or not isinstance(values, dict):
            return f"kind '{kind}' needs rising knots and coefficients"
        wanted = names(knots)
    values = {DECODES: 0.0, **values}
    bad = [name for name in wanted if not isinstance(values.get(name), int | float) or values[name] < 0]
    return f"kind '{kind}' needs numbers of at least 0 for {', '.join(bad)}" if bad else ""


def _rising(knots: Any) -> bool:
    if not isinstance(knots, list) or not knots or not all(isinstance(knot, int) for knot in knots):
        return False
    return knots == sorted(set(knots))

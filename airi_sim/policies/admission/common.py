"""What several kinds of admission share."""

from __future__ import annotations

from airi_sim.core.protocols import View
from airi_sim.core.types import Job, Verdict

WELCOME = Verdict(True)


class Always:
    """Everybody enters at once. `always` spares the gateway the question (and the log a row a request)."""

    always = True

    def admit(self, job: Job, view: View, now: float) -> Verdict:
        return WELCOME


class Never:
    """Nobody enters. A control."""

    def admit(self, job: Job, view: View, now: float) -> Verdict:
        return Verdict(False, None, "nobody is admitted")


def alive(view: View, now: float) -> list[int]:
    """The replicas that are up."""
    return [i for i, up in enumerate(view.column("up", now)) if up]

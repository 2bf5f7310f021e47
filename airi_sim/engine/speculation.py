"""Executors of replicas that speculate in the simulated world: how far each job comes in a pass."""

from __future__ import annotations

from typing import Any

from airi_sim.core.protocols import CostModel, Script
from airi_sim.core.types import Ended, Outcome, Plan
from airi_sim.hardware.speculation import Speculation
from airi_sim.workload.speculation import Acceptance, read_acceptance


class Turns:
    """Who gets how many tokens in a pass, and who stops: what `executors.Stops` is where each gets one.

    `members` are the decoding jobs of each lane, with the version they had when they joined (another one voids them)
    and their output tokens so far.
    """

    def __init__(self, script: Script, acceptance: Acceptance, drafted: int, lanes: int = 1) -> None:
        self.length = script.output_tokens
        self.acceptance = acceptance
        self.drafted = drafted
        self.members: list[dict[Any, tuple[int, int]]] = [{} for _ in range(lanes)]

    def join(self, plan: Plan) -> None:
        """Jobs that decode without a prompt from this plan on (resumed, handed over)."""
        for job in plan.joins:
            self.members[plan.lane][job] = (job.version, job.out)

    def finish(self, plan: Plan, now: float) -> Ended:
        """A plan of one pass is over."""
        members = self.members[plan.lane]
        advanced = self._advance(members) if plan.sequences else {}
        stopped = [job for job in advanced if job not in members]
        for job in plan.ends:
            if job.out + 1 >= self._limit(job):
                stopped.append(job)
            else:
                members[job] = (job.version, job.out + 1)
        for job in stopped:
            self.acceptance.forget(job.id)
        return Outcome(1, stopped, now - plan.start, advanced)

    def _advance(self, members: dict[Any, tuple[int, int]]) -> dict[Any, int]:
        """Tokens of each member; those that reach their end are members no more."""
        advanced = {}
        for job, (version, out) in list(members.items()):
            if job.version != version:
                del members[job]
                self.acceptance.forget(job.id)
                continue
            left = self._limit(job) - out
            tokens = advanced[job] = min(self.acceptance.accepted(job, out, self.drafted) + 1, left)
            if tokens == left:
                del members[job]
            else:
                members[job] = (version, out + tokens)
        return advanced

    def _limit(self, job: Any) -> int:
        return min(self.length(job), job.budget)


class SpeculativeExecutor:
    """Plans of a SpeculativeServer by a cost model, pass by pass."""

    detailed = False

    def __init__(self, cost: CostModel, turns: Turns) -> None:
        self.cost = cost
        self.ranks = getattr(cost, "needs_longest", False)
        self.turns = turns

    def start(self, plan: Plan, now: float) -> float:
        self.turns.join(plan)
        return now + self.cost.affine(plan).first

    def cut(self, plan: Plan, now: float, more: int = 0) -> float | None:
        return None

    def progress(self, plan: Plan, now: float) -> int:
        return 0

    def finish(self, plan: Plan, now: float) -> Ended:
        return self.turns.finish(plan, now)


def turns(speculation: Speculation, script: Script) -> Turns:
    """How far jobs come in a pool with this speculation: by its rate, or by what was recorded."""
    seed, rate = getattr(script, "seed", 0), speculation.acceptance
    acceptance = Acceptance(rate, seed) if isinstance(rate, int | float) else read_acceptance(rate, seed)
    return Turns(script, acceptance, speculation.tokens)

"""Plans of servers that copy KV blocks, by a cost model: the copies come first, then the pass."""

from __future__ import annotations

from airi_sim.core.protocols import CostModel, Script
from airi_sim.core.types import Plan
from airi_sim.engine.executors import CostExecutor
from airi_sim.hardware.storage import CopyCost


class CopyingExecutor(CostExecutor):
    """A CostExecutor for a CopyingServer: a plan with copies is one pass, longer by what they take."""

    def __init__(self, cost: CostModel, script: Script, copies: CopyCost) -> None:
        super().__init__(cost, script)
        self.copies = copies

    def start(self, plan: Plan, now: float) -> float:
        end = super().start(plan, now)
        return end if plan.copies is None else end + self.copies.seconds(plan.copies)

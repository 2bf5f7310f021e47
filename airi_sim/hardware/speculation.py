"""Speculative decoding: what a pool that does it runs, and what its passes cost.

A pass is `tokens` passes of the draft model over the decoding sequences, then one pass of the target that checks
`tokens` + 1 tokens of each. Prompts go through both models: through the draft in its first pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import CostModel
from airi_sim.core.types import Affine, Plan
from airi_sim.hardware.accelerator import Accelerator
from airi_sim.hardware.fitted import FittedCost
from airi_sim.hardware.serving import BARE, Serving
from airi_sim.models.spec import ModelSpec

if TYPE_CHECKING:
    from airi_sim.hardware.deployment import Deployment

DRAFT = "draft"
"""The kind of pass of a calibration profile that a draft model makes, and the key that names that model."""
METHODS = ("greedy", "rejection")


@dataclass(frozen=True)
class Speculation:
    """`draft` proposes `tokens` tokens a pass; the target accepts those it would have said (`greedy`), or as many as
    leave its distribution at `temperature` what it is (`rejection`). `acceptance` is for the simulator alone: the
    probability that a drafted token is accepted, or what a measured run accepted (workload.speculation), or a file of
    that."""

    draft: ModelSpec
    tokens: int = 4
    acceptance: Any = 0.7
    method: str = "greedy"
    temperature: float = 1.0


class SpeculativeCost:
    """Seconds of a speculating pass from the costs of its two models, each as of a pass of its own. `checking` says
    what pass that is for the target: `rows_of` or `chunks_of`."""

    def __init__(
        self, target: CostModel, draft: CostModel, tokens: int, checking: Callable[[Plan, int], Plan] | None = None
    ) -> None:
        self.target, self.draft, self.tokens = target, draft, tokens
        self.checking = checking or rows_of
        self.needs_longest = any(getattr(cost, "needs_longest", False) for cost in (target, draft))
        self.notes: tuple[str, ...] = tuple({**dict.fromkeys(_notes(target)), **dict.fromkeys(_notes(draft))})

    def affine(self, plan: Plan) -> Affine:
        """One pass: how far jobs come is not known, so no two are sure to be alike."""
        seconds = self.target.affine(self.checking(plan, self.tokens)).first
        seconds += self.draft.affine(drafting(plan)).first
        done = 1
        while plan.sequences and done < self.tokens:
            first, step, passes = self.draft.affine(drafting(plan, done))
            passes = min(passes, self.tokens - done)
            seconds += passes * first + step * (passes * (passes - 1) * 0.5)
            done += passes
        return Affine(seconds, 0.0, 1)


def speculative_cost(deployment: Deployment, cost_model: Callable[[Deployment], CostModel]) -> SpeculativeCost:
    """What `cost_model` says of the two models of a pool that speculates. BadInput where a calibration profile was
    measured with another draft model, or none."""
    what, plain = deployment.speculation, replace(deployment, speculation=None)
    assert what is not None
    profile = getattr(deployment.accelerator, "profile", None)
    if profile is None:
        quiet = unattended(deployment.serving or BARE, deployment.accelerator)
        return SpeculativeCost(
            cost_model(plain), cost_model(replace(plain, model=what.draft, serving=quiet)), what.tokens
        )
    if profile.get(DRAFT) != what.draft.name:
        measured = f"with the draft model '{profile[DRAFT]}'" if DRAFT in profile else "without a draft model"
        raise BadInput(
            f"the calibration profile was measured {measured}, but pool '{deployment.name}' speculates with "
            f"'{what.draft.name}': calibrate again with it."
        )
    return SpeculativeCost(cost_model(plain), FittedCost(profile, DRAFT), what.tokens, chunks_of)


def unattended(serving: Serving, device: Accelerator) -> Serving:
    """The engine while its draft model runs: kernels are launched, but nothing is scheduled, prepared or sent."""
    there, _ = serving.placed(device)
    own = {
        name: {key: value for key, value in one.items() if key not in HOST}
        for name, one in serving.per_accelerator.items()
    }
    return replace(there, per_accelerator=own, **dict.fromkeys(HOST, 0.0))  # type: ignore[arg-type]


HOST = ("step_s", "sequence_s", "token_s", "prompt_s", "streamed_s")
"""What the host does once for a pass of the engine, not for those of the draft model inside it."""


def _notes(cost: CostModel) -> tuple[str, ...]:
    return tuple(getattr(cost, "notes", ()))


def rows_of(plan: Plan, tokens: int) -> Plan:
    """The pass of the target as the kernels of a serving engine see it: each checked token is one more decoding
    sequence, but the context of a job is read once for all its tokens."""
    return _pass(plan, plan.sequences * (tokens + 1), plan.context, plan.longest + tokens, prompts=True)


def chunks_of(plan: Plan, tokens: int) -> Plan:
    """The pass of the target as the torch backend runs it: the checked tokens of a job are a chunk, like one of a
    prompt."""
    n, each = plan.sequences, tokens + 1
    return Plan(
        plan.server,
        plan.start,
        [*((None, each) for _ in range(n)), *plan.slices],
        prefill_tokens=plan.prefill_tokens + n * each,
        prefill_attention=plan.prefill_attention + each * (2 * plan.context + n * each),
        prefill_context=plan.prefill_context + plan.context + n * each,
        shared=plan.shared,
    )


def drafting(plan: Plan, done: int = 0) -> Plan:
    """The pass of the draft after `done` of them. The first takes in the prompts, and two tokens of each job: the draft
    model has not seen the one before the last if all were accepted."""
    n = plan.sequences
    if not done:
        return _pass(plan, 2 * n, plan.context, plan.longest, prompts=True)
    return _pass(plan, n, plan.context + done * n, plan.longest + done, prompts=False)


def _pass(plan: Plan, sequences: int, context: int, longest: int, *, prompts: bool) -> Plan:
    return Plan(
        plan.server,
        plan.start,
        plan.slices if prompts else (),
        sequences=sequences,
        context=context if sequences else 0,
        longest=longest if sequences else 0,
        prefill_tokens=plan.prefill_tokens if prompts else 0,
        prefill_attention=plan.prefill_attention if prompts else 0,
        prefill_context=plan.prefill_context if prompts else 0,
        shared=plan.shared if sequences else 0,
    )

"""The physics cost model: datasheet x efficiencies x architecture, in closed form over equal passes.

T(pass) = A[new tokens] + B[sequences] + c_kv * context * (mixed factor) + c_q * decodes + c_pf * prefill pairs
What is not linear depends on (new tokens, sequences) only and is tabulated; context enters linearly, so k equal passes
sum exactly. Roofline blends live inside A; decode KV is added to it, because weights and KV are different kernels.
"""

from __future__ import annotations

from typing import Any

from airi_sim.core.errors import BadInput
from airi_sim.core.types import FOREVER, Affine, Plan
from airi_sim.hardware.accelerator import Accelerator
from airi_sim.hardware.deployment import Deployment
from airi_sim.hardware.kernels import Kernels, check_tensor_parallel, kv_shards, layouts
from airi_sim.hardware.serving import BARE, Serving
from airi_sim.hardware.table import Table
from airi_sim.models.spec import ModelSpec, kept_precision


class PhysicsCost:
    """Seconds of a pass of `deployment` (its `accelerator` an Accelerator, its `serving` a Serving or None).

    Raises BadInput at construction when there is no model, the precision is unknown, or tp cannot lay out the heads.
    `notes` says where a prediction leaves what its coefficients were measured on.
    """

    __slots__ = (
        "_beside", "_context", "_decode", "_mixed", "_pair", "_past", "_sequences", "_shared", "_tokens", "_windows",
        "notes",
    )  # fmt: skip

    def __init__(self, deployment: Deployment) -> None:
        model, device = deployment.model, deployment.accelerator
        if model is None or device is None:
            raise BadInput(f"pool '{deployment.name}' needs a model and an accelerator to be simulated.")
        serving, device = (deployment.serving or BARE).placed(device)
        kernels = Kernels(model, device, serving, deployment.precision, deployment.tp)
        launch, each = kernels.decode_launch(), kernels.decode_sequence()
        each_s = serving.sequence_s + serving.streamed_s
        prompts = kernels.prefill_launch() + serving.prompt_s

        def tokens(n: Any) -> Any:
            return serving.paced(kernels.layers(serving.padded(n)), model.layers) + serving.token_s * n

        def sequences(n: Any) -> Any:
            return kernels.head(n) + each_s * n

        arrays = kernels.correct is None  # corrections look up one shape at a time
        self._tokens = Table(tokens, arrays)
        self._sequences = Table(sequences, arrays)
        self._decode = Table(lambda n: tokens(n) + sequences(n) + launch * serving.graph + each * n, arrays)
        self._beside = Table(lambda n: prompts + (launch + each * n) * device.mixed * (n > 0), arrays)
        whole, *windows = kernels.reaches()
        self._context = whole.decode
        self._mixed = self._context * device.mixed
        self._pair = whole.pair / 2
        self._past = kernels.prefill_context()
        self._shared = self._context * (1 - serving.shared)
        self._windows = [(reach.window, reach.decode, reach.decode * device.mixed, reach.pair) for reach in windows]
        doubts = device.notes(deployment.precision, serving.collective, deployment.tp)
        self.notes = (*doubts, *model.notes(deployment.precision), *_notes(model))

    def affine(self, plan: Plan) -> Affine:
        """Pass i takes first + i * step; the decodes attend to context + sequences * (i + 1) tokens."""
        return Affine(*self.line(plan))

    def line(self, plan: Plan) -> tuple[float, float, int]:
        """The numbers of `affine`, without its names: for who asks once a plan."""
        n = plan.sequences
        new = plan.prefill_tokens
        if self._windows:
            return self._windowed(plan)
        if not new:
            c = self._context
            first = self._decode[n] + c * (plan.context + n)
            if plan.shared:
                first -= self._shared * plan.shared
            return first, c * n, FOREVER
        return self._with_prompts(plan), self._mixed * n, FOREVER

    def _with_prompts(self, plan: Plan) -> float:
        """The first pass of a plan that takes in prompts."""
        n, new = plan.sequences, plan.prefill_tokens
        work = self._tokens[n + new] + self._sequences[n + len(plan.slices)] + self._beside[n]
        prefill = self._pair * (plan.prefill_attention + new) + self._past * plan.prefill_context
        return work + prefill + self._mixed * (plan.context + n) - self._shared * plan.shared

    def _windowed(self, plan: Plan) -> tuple[float, float, int]:
        """The same with layers that look back on a window: as far as the mean context, until that fills the window."""
        n, new = plan.sequences, plan.prefill_tokens
        if new:
            first, step = self._with_prompts(plan), self._mixed * n
        else:
            first = self._decode[n] + self._context * (plan.context + n) - self._shared * plan.shared
            step = self._context * n
        passes = FOREVER
        mean = plan.context / n + 1 if n else 0.0
        seen = (plan.prefill_attention + new) / (2 * new) if new else 0.0
        for window, alone, mixed, pair in self._windows:
            c = mixed if new else alone
            first += c * n * min(mean, window) + pair * new * min(seen, window)
            if mean < window:
                step += c * n
                passes = min(passes, int(window - mean) + 1)
        return first, step, passes


def _notes(model: ModelSpec) -> tuple[str, ...]:
    """One sentence for each reason to expect a larger error than usual."""
    notes = []
    if model.experts:
        notes.append(f"'{model.name}' is a mixture of experts: grouped products are 17-35 % off on unseen models.")
    return tuple(notes)


def kv_blocks(
    model: ModelSpec,
    accelerator: Accelerator,
    serving: Serving | None = None,
    precision: str = "bf16",
    tp: int = 1,
    block_size: int = 16,
    gpu_memory_utilization: float = 0.9,
    max_num_batched_tokens: int = 8192,
    draft: ModelSpec | None = None,
) -> int:
    """KV blocks of one replica: what weights, activations and the engine leave of its memory. A `draft` model has
    its weights there too, and its KV in the same blocks.

    Raises BadInput when tp cannot lay out the heads, or when not even one block is left: says how many bytes are
    needed and there, and the smallest tp that fits.
    """
    models = [model] if draft is None else [model, draft]
    for one in models:
        check_tensor_parallel(one, tp)
    if not 0 < gpu_memory_utilization <= 1:
        raise BadInput(f"server.gpu_memory_utilization must lie in (0, 1], not {gpu_memory_utilization}.")
    usable = gpu_memory_utilization * accelerator.memory_bytes

    def block(ranks: int) -> float:
        kept = kept_precision(precision)
        each = [one.kv_bytes_per_token(kept) / kv_shards(one, ranks) for one in models]
        return block_size * sum(each)

    def used(ranks: int) -> float:
        besides = _besides_kv(model, serving or BARE, precision, ranks, max_num_batched_tokens)
        return besides + sum(one.weight_bytes(precision) / ranks for one in models[1:])

    blocks = int((usable - used(tp)) // block(tp))
    if blocks >= 1:
        return blocks
    fitting = [ranks for ranks in layouts(model) if used(ranks) + block(ranks) <= usable]
    advice = f"the smallest tp that fits is {fitting[0]}" if fitting else "no tp fits: use a larger accelerator"
    raise BadInput(
        f"'{model.name}' in {precision} with tp={tp} needs {used(tp) + block(tp):.3g} bytes on each "
        f"'{accelerator.name}', which has {usable:.3g} bytes to give ({gpu_memory_utilization:.0%} of it); {advice}."
    )


def _besides_kv(model: ModelSpec, serving: Serving, precision: str, tp: int, tokens: int) -> float:
    """Bytes per accelerator of weights, peak activations of a pass of `tokens`, and what the engine keeps."""
    widest = max(model.ffn, model.active_experts * model.expert_ffn + model.shared_ffn)
    activations = 2.0 * tokens * (4 * model.hidden + 3 * widest / tp)
    return model.weight_bytes(precision) / tp + activations + serving.reserve_bytes

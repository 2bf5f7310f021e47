"""What accelerators draw while they work.

watts = idle + (tdp - idle) * min(1, base + memory * m + compute * c)

m and c are the bytes and operations of a pass over what the data sheet allows in its time; `base` is what being awake
costs. The three numbers were fitted to the mean and peak power of Llama-2-70B on one, two and four pairs of A100 in
Splitwise's table (`python -m experiments.power` fits them anew, and says how well they hold); no other accelerator was
measured, so elsewhere they are a guess.
"""

from __future__ import annotations

from dataclasses import dataclass

from airi_sim.hardware.deployment import Deployment
from airi_sim.models.spec import ModelSpec, kept_precision


@dataclass(frozen=True)
class Power:
    """Shares of the dynamic range: of being awake, of full memory bandwidth, of full arithmetic."""

    base: float = 0.16
    memory: float = 0.82
    compute: float = 1.6

    def share(self, memory: float, compute: float) -> float:
        """Share of the dynamic range drawn at these utilisations."""
        return min(1.0, self.base + self.memory * memory + self.compute * compute)


FITTED = Power()


def work(deployment: Deployment, power: Power = FITTED) -> dict[str, float]:
    """What a pass of `deployment` draws beyond idle, as seconds at full power, in parts that add up:

    base       per second of the pass
    pass_s     per pass (weights that every pass reads)
    prompt_s, decode_s   per new token of a prompt, per decoding job (matrix products; the output head for the latter)
    context_s  per token of context (KV read; scores and values)
    experts_s, unused    the pass reads experts_s * (1 - unused ** tokens) of routed experts

    Attention of prompts to themselves is left out: passes with prompts are bound by arithmetic and near full power.
    """
    model, device = deployment.model, deployment.accelerator
    if model is None or device is None or deployment.kind != "generate":
        return {"base": 1.0}
    moved = power.memory / (device.bandwidth * deployment.tp)
    computed = power.compute / (device.peak(deployment.precision) * deployment.tp)
    experts, unused = _experts(model, deployment.precision)
    head = 2.0 * model.vocab * model.hidden
    token = model.flops_per_token(0)
    pairs = model.flops_per_token(1) - token
    return {
        "base": power.base,
        "pass_s": moved * (model.weight_bytes(deployment.precision) - experts),
        "prompt_s": computed * (token - head),
        "decode_s": computed * token,
        "context_s": moved * model.kv_bytes_per_token(kept_precision(deployment.precision)) + computed * pairs,
        "experts_s": moved * experts,
        "unused": unused,
    }


def _experts(model: ModelSpec, precision: str) -> tuple[float, float]:
    """Bytes of all routed experts, and the share of them that one token leaves alone."""
    numbers = model.modules.get("experts", 0)
    unused = 1.0 - model.active_experts / model.experts if model.experts else 1.0
    return numbers * model.stored("experts", precision), unused

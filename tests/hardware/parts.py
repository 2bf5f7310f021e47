"""Objects from conf/, and plans by their numbers."""

from functools import cache
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import OmegaConf

from airi_sim.core.types import Plan
from airi_sim.hardware.deployment import Deployment
from airi_sim.workbench.paths import choice

CONF = Path(__file__).parents[2] / "conf"


@cache
def load(group: str, name: str) -> Any:
    return instantiate(OmegaConf.create(choice(group, name)))


def deployment(model="llama-3.1-8b", accelerator="h100-sxm", serving="vllm", **more) -> Deployment:
    return Deployment(
        "pool", "generate", load("model", model), load("accelerator", accelerator), load("serving", serving), **more
    )


def make_plan(contexts=(), chunks=(), **more) -> Plan:
    """A pass that decodes sequences with these contexts and prefills chunks (new, past)."""
    return Plan(
        0,
        0.0,
        [(object(), new) for new, _ in chunks],
        [],
        sequences=len(contexts),
        context=sum(contexts),
        longest=max(contexts, default=0),
        prefill_tokens=sum(new for new, _ in chunks),
        prefill_attention=sum(new * (2 * past + new) for new, past in chunks),
        prefill_context=sum(new + past for new, past in chunks),
        **more,
    )

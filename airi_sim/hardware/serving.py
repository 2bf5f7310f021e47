"""What the serving engine adds to the kernels: host work, API path, kernel quality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from airi_sim.core.errors import BadInput, unknown
from airi_sim.hardware.accelerator import Accelerator

PACE = 2.5


@dataclass(frozen=True)
class Serving:
    """Coefficients of one engine, in seconds; one yaml each in conf/serving.

    step_s, sequence_s, token_s   host time per pass, per sequence in it, per new token in it
    streamed_s                    more host time per sequence in a pass while tokens stream out over the API
                                  (detokenised and sent beside the engine; 0 for in-process use)
    launch_s                      host time of launching the kernels of one layer, hidden behind longer kernels
    graph_step, graph_most        passes are captured as graphs for 1, 2, 4 and every `graph_step` tokens up to
                                  `graph_most`, and padded to the next one (0: no graphs)
    prompt_s                      more host time of a pass that takes in prompts (building the batch)
    sampler_s                     picking the next tokens, per pass
    layer_s                       small kernels of one layer (norms, rotary embedding, cache write)
    shared                        time of decode attention over context that another sequence of the pass reads
                                  too (it comes from the last-level cache), relative to other context
    graph                         part of an attention kernel's fixed time that is left in a pure decode pass
                                  (captured graphs launch faster)
    request_s, stream_s           API path, not in a pass: of a request until it queues, of every token back to the user
    ahead                         while a pass runs the next one is composed already (asynchronous scheduling): a
                                  request is first considered for the pass after that
    per_accelerator               {accelerator: {coefficient: value}}: what differs there, coefficients of the
                                  accelerator included (an engine brings its own kernels, a machine its own host)
    reserve_bytes                 memory the engine keeps besides weights, activations and KV (graphs, workspaces)
    collective                    whose all-reduce it calls (a key of Accelerator.collectives)
    """

    name: str
    step_s: float = 0.0
    sequence_s: float = 0.0
    token_s: float = 0.0
    prompt_s: float = 0.0
    streamed_s: float = 0.0
    sampler_s: float = 60e-6
    layer_s: float = 0.0
    shared: float = 1.0
    graph: float = 1.0
    graph_step: int = 0
    graph_most: int = 0
    launch_s: float = 0.0
    request_s: float = 0.0
    stream_s: float = 0.0
    ahead: bool = False
    reserve_bytes: float = 0.0
    collective: str = "nccl"
    per_accelerator: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    confidence: str = "low"
    source: str = ""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, int | float) and value < 0:
                raise BadInput(f"serving '{self.name}': {item.name} cannot be negative, but is {value}.")

    @property
    def api_s(self) -> float:
        """By how much the API path makes a request later, first token and last alike: tokens overtake none."""
        return self.request_s + self.stream_s

    def placed(self, device: Accelerator) -> tuple[Serving, Accelerator]:
        """This engine and `device` with the coefficients that the engine has there."""
        own = self.per_accelerator.get(device.name, {})
        mine, its = {item.name for item in fields(self)}, {item.name for item in fields(device)}
        for name in own:
            if name not in mine | its:
                raise unknown(f"coefficient of serving '{self.name}' on {device.name}", name, mine | its)
        ours = {name: value for name, value in own.items() if name in mine}
        theirs = {name: value for name, value in own.items() if name not in mine}
        return replace(self, **ours), replace(device, **theirs)  # type: ignore[arg-type]

    def padded(self, tokens: Any) -> Any:
        """Tokens that the kernels of a pass work on; of one number, or of each of an array."""
        if isinstance(tokens, int):
            return int(self.padded(np.array([tokens]))[0])
        steps = np.where(tokens <= 2, 1, np.where(tokens <= 4, 4, max(self.graph_step, 1)))
        return np.where(tokens <= self.graph_most, -(-tokens // steps) * steps, tokens)

    def paced(self, kernels: float, layers: int) -> float:
        """Seconds of a pass whose kernels take so long: the host launches them and works before and after. Kernels wait
        for their launch one by one, so the two blend instead of the longer one hiding the other."""
        launch = self.launch_s * layers
        paced: float = (kernels**PACE + launch**PACE) ** (1 / PACE) if launch else kernels
        return self.step_s + paced


BARE = Serving("bare", sampler_s=0.0)
"""No engine at all: kernels only."""

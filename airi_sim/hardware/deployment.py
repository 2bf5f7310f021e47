"""What one pool runs, and on what: the value from which both worlds make their executors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from airi_sim.hardware.speculation import Speculation
from airi_sim.models.spec import ModelSpec


@dataclass(frozen=True)
class Deployment:
    """One pool: `kind` generate (TokenServers) or one of service.SERVICES (BatchServers, SlotServers).

    `kv_blocks` blocks of `block_size` tokens per replica; `hash_block` prompt tokens per prefix id; `service` holds
    the constants of a service (seconds: constant, per_token, per_item, per_cached; its dimensions: docs/services.md).
    `speculation`: what a generate pool drafts with, None if it does not.
    `devices`: accelerators that it shares with other pools, one a replica, over and over; its model comes and goes
    there. `family`: the pool it is a copy of, with a model of the same shape.
    `swap_blocks` KV blocks per replica on the host.
    """

    name: str
    kind: str
    model: ModelSpec | None
    accelerator: Any = None
    serving: Any = None
    precision: str = "bf16"
    replicas: int = 1
    tp: int = 1
    block_size: int = 16
    kv_blocks: int = 0
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    prefix_caching: bool = False
    hash_block: int = 512
    service: dict[str, Any] | None = None
    speculation: Speculation | None = None
    devices: tuple[str, ...] = ()
    family: str = ""
    swap_blocks: int = 0
    copy_on_write: bool = False

    @property
    def copies(self) -> bool:
        """Whether its plans may copy KV blocks."""
        return bool(self.swap_blocks) or self.copy_on_write

    @property
    def likeness(self) -> str:
        """What profiles know its model as: pools of one family are calibrated together."""
        return self.family or (self.model.name if self.model is not None else self.name)

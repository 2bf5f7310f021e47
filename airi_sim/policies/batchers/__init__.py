"""What runs in the next pass. Each composes it through a Draft (core.protocols) and never loops over decoding jobs,
except where its rule is about all of them and somebody waits."""

from airi_sim.policies.batchers.common import admit_waiting
from airi_sim.policies.batchers.iteration import ChunkedPrefill, DecodeFirst, PrefillCadence, PrefillFirst, SloChunk
from airi_sim.policies.batchers.memory import Continuous, PastFuture
from airi_sim.policies.batchers.whole import Aimd, GreedyAll, SizeTimeout, Static

__all__ = [
    "Aimd",
    "ChunkedPrefill",
    "Continuous",
    "DecodeFirst",
    "GreedyAll",
    "PastFuture",
    "PrefillCadence",
    "PrefillFirst",
    "SizeTimeout",
    "SloChunk",
    "Static",
    "admit_waiting",
]

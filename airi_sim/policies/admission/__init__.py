"""May this job enter now, later, or never, and why. Asked at the gateway, before anything else."""

from airi_sim.policies.admission.buckets import Quota, TokenBucket
from airi_sim.policies.admission.common import Always, Never
from airi_sim.policies.admission.limits import AimdLimit, ConcurrencyLimit, GradientLimit
from airi_sim.policies.admission.overload import DeadlineDrop, EarlyReject, Saturation, TierShed

__all__ = [
    "AimdLimit",
    "Always",
    "ConcurrencyLimit",
    "DeadlineDrop",
    "EarlyReject",
    "GradientLimit",
    "Never",
    "Quota",
    "Saturation",
    "TierShed",
    "TokenBucket",
]

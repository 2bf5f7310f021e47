"""Which replica. Every router passes over replicas that are down (`up` is 0); where all are, any index is as good."""

from airi_sim.policies.routers.blind import Random, RoundRobin, Weighted
from airi_sim.policies.routers.common import MANY, least, spread
from airi_sim.policies.routers.hetero import HeteroCost
from airi_sim.policies.routers.load import Jiq, Jsq, LeastKv, LeastWork, PowerOfTwo, TokenJsq, VllmDp
from airi_sim.policies.routers.prefix import KvCost, PrefixAffinity, Scored
from airi_sim.policies.routers.sticky import ConsistentHash, SessionSticky

__all__ = [
    "MANY",
    "ConsistentHash",
    "HeteroCost",
    "Jiq",
    "Jsq",
    "KvCost",
    "LeastKv",
    "LeastWork",
    "PowerOfTwo",
    "PrefixAffinity",
    "Random",
    "RoundRobin",
    "Scored",
    "SessionSticky",
    "TokenJsq",
    "VllmDp",
    "Weighted",
    "least",
    "spread",
]

"""Who is next. One small class a rule, a file a family; the gateway and every replica use the same ones.

Orders that a waiting job cannot change by waiting are `timeless`; the others say exactly for how long their head stays
the head (`stable`), which is what lets a server run many passes without asking again. Those that want running jobs to
make way say which (`contest`); a batcher that preempts asks them (`airi_sim.policies.preemption`). Ties go to the
smaller id.
"""

from airi_sim.policies.queues.attained import Las, Mlfq, SkipJoinMlfq
from airi_sim.policies.queues.counters import Lcf, PredictedVtc, Rpm, Vtc
from airi_sim.policies.queues.deadline import Edf, Lars, Slack
from airi_sim.policies.queues.experience import Qoe
from airi_sim.policies.queues.fair import Drr, Sfq, Stride, Wfq
from airi_sim.policies.queues.locality import Dlpm
from airi_sim.policies.queues.order import Fcfs, Lcfs, PriorityAging, RandomOrder
from airi_sim.policies.queues.programs import Atlas, Plas
from airi_sim.policies.queues.size import PredictedSjf, Sjf, Srpt

__all__ = [
    "Atlas", "Dlpm", "Drr", "Edf", "Fcfs", "Lars", "Las", "Lcf", "Lcfs", "Mlfq", "Plas", "PredictedSjf",
    "PredictedVtc", "PriorityAging", "Qoe", "RandomOrder", "Rpm", "Sfq", "Sjf", "SkipJoinMlfq", "Slack", "Srpt",
    "Stride", "Vtc", "Wfq",
]  # fmt: skip

"""The built-in queues with arguments that bite in worlds of forty requests and a few seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airi_sim.policies import queues
from airi_sim.policies.predictors import History

WEIGHTS = {"t0": 3.0, "t1": 0.1}
CONTESTING: dict[str, Callable[[], Any]] = {
    "srpt": lambda: queues.Srpt(Hints()),
    "srpt_history": lambda: queues.Srpt(History(first=20, decay=0.3)),
    "las": lambda: queues.Las(quantum=8),
    "mlfq": lambda: queues.Mlfq(quantum=4, growth=1.5, levels=5, patience=0.6),
    "skip_join_mlfq": lambda: queues.SkipJoinMlfq(quantum=4, levels=4, patience=0.6, prompt_rate=20.0),
    "edf": queues.Edf,
    "lars": lambda: queues.Lars(prompt_s=1e-3, slack_s=1.0),
    "qoe": lambda: queues.Qoe(ttft_s=0.1, speed=30.0, pace=60.0, quantum_s=0.15, preemptions=2),
}
"""Those that can want running jobs to make way."""

BUILT_IN: dict[str, Callable[[], Any]] = {
    "fcfs": queues.Fcfs,
    "lcfs": queues.Lcfs,
    "random": lambda: queues.RandomOrder(seed=3),
    "priority_aging": lambda: queues.PriorityAging(patience=0.4),
    "sjf": queues.Sjf,
    "predicted_sjf": lambda: queues.PredictedSjf(History(by="", first=20), w_in=0.1),
    **CONTESTING,
    "slack": lambda: queues.Slack(prompt_s=1e-3, token_s=0.01),
    "sfq": lambda: queues.Sfq(WEIGHTS),
    "wfq": lambda: queues.Wfq(WEIGHTS),
    "stride": lambda: queues.Stride(WEIGHTS),
    "drr": lambda: queues.Drr(quantum=200.0, weights=WEIGHTS),
    "rpm": lambda: queues.Rpm(limit=3, window_s=0.5),
    "lcf": queues.Lcf,
    "vtc": queues.Vtc,
    "vtc_weighted": lambda: queues.Vtc(weights=WEIGHTS),
    "predicted_vtc": lambda: queues.PredictedVtc(weights=WEIGHTS),
    "dlpm": lambda: queues.Dlpm(quantum=150, window=6),
    "plas": lambda: queues.Plas(by="session", quantum=100.0, patience=0.6),
    "atlas": queues.Atlas,
}


class Hints:
    """A predictor without a script: half right, and different for each job."""

    def predict(self, job: Any) -> float:
        return 1.0 + job.request * 37 % 80

    def learn(self, job: Any, tokens_out: int) -> None:
        """Nothing."""

"""Admission by how loaded the pool is: whom to turn away when not all can be served in time."""

from __future__ import annotations

from math import inf

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import View
from airi_sim.core.types import Job, Verdict
from airi_sim.policies.admission.common import WELCOME, alive


class Saturation:
    """Jobs that may be shed are rejected while the pool is saturated (Gateway API inference extension).

    Saturation is the mean over replicas of max(waiting / `queue`, share of KV blocks in use / `kv`); full at 1, and a
    pool without a replica is full. `sheddable`: jobs whose priority number is that or higher may be shed (0 is the
    most urgent); the others always enter.
    """

    def __init__(self, queue: float = 5.0, kv: float = 0.8, sheddable: int = 1) -> None:
        if not 0 < queue < inf or not 0 < kv <= 1:
            raise BadInput("Saturation needs queue > 0 jobs and kv above 0, at most 1.")
        self.queue = queue
        self.kv = kv
        self.sheddable = sheddable

    def admit(self, job: Job, view: View, now: float) -> Verdict:
        if job.priority < self.sheddable or self.saturation(view, now) < 1:
            return WELCOME
        return Verdict(False, None, "the pool is saturated")

    def saturation(self, view: View, now: float) -> float:
        """From 0 (nothing to do) over 1 (full) to anything."""
        waiting, used, total = (view.column(name, now) for name in ("waiting", "kv_used_blocks", "kv_total_blocks"))
        loads = [max(waiting[i] / self.queue, used[i] / max(1, total[i]) / self.kv) for i in alive(view, now)]
        return sum(loads) / len(loads) if loads else 1.0


class TierShed:
    """When the busiest replica has more than `load` jobs, those of a priority number above `keep` are rejected: whoever
    pays least is turned away first."""

    def __init__(self, load: int = 64, keep: int = 0) -> None:
        if load < 0:
            raise BadInput(f"load of TierShed is {load} jobs and must be 0 or more.")
        self.load = load
        self.keep = keep

    def admit(self, job: Job, view: View, now: float) -> Verdict:
        jobs = view.column("outstanding", now)
        if job.priority <= self.keep or max([jobs[i] for i in alive(view, now)], default=0) <= self.load:
            return WELCOME
        return Verdict(False, None, f"over {self.load} jobs on a replica: only priority up to {self.keep} enters")


class EarlyReject:
    """Rejects at arrival who would miss the SLO anyway (Mooncake; Qin et al., FAST 2025), before work is wasted on it.

    On the replica where it is predicted to be soonest, the first token comes after the prompt tokens that wait there
    and those of the job that are not in memory, at `prompt_tokens_per_s`; then a pass takes `pass_s` and `sequence_s`
    for each job that decodes. With `decode_s`, the seconds a job decodes for, the load is that of the moment at which
    decoding begins: by then that share of the running jobs is over and those that wait have begun. Without it (0) it
    is that of now, which sees too little while prompts queue up and too much after. The defaults are of an 8B model on
    an H100.
    """

    def __init__(
        self,
        ttft_s: float = 2.0,
        tpot_s: float = 0.05,
        prompt_tokens_per_s: float = 25_000.0,
        pass_s: float = 0.008,
        sequence_s: float = 2e-5,
        decode_s: float = 0.0,
    ) -> None:
        if not ttft_s > 0 or not tpot_s > 0 or not prompt_tokens_per_s > 0:
            raise BadInput("EarlyReject needs ttft_s, tpot_s and prompt_tokens_per_s above 0.")
        if not pass_s >= 0 or not sequence_s >= 0 or not decode_s >= 0:
            raise BadInput("EarlyReject needs pass_s, sequence_s and decode_s of 0 or more seconds.")
        self.ttft_s = ttft_s
        self.tpot_s = tpot_s
        self.prompt_tokens_per_s = prompt_tokens_per_s
        self.pass_s = pass_s
        self.sequence_s = sequence_s
        self.decode_s = decode_s

    def admit(self, job: Job, view: View, now: float) -> Verdict:
        queued = view.column("queued_tokens", now)
        ahead = {i: queued[i] + job.tokens - view.matched(i, job) for i in alive(view, now)}
        if not ahead:
            return WELCOME
        best = min(ahead, key=ahead.__getitem__)
        ttft_s = ahead[best] / self.prompt_tokens_per_s
        if ttft_s > self.ttft_s:
            return Verdict(False, None, f"the first token would take over {self.ttft_s:g} s")
        if self.pass_s + self.sequence_s * self._decoding(best, view, ttft_s, now) > self.tpot_s:
            return Verdict(False, None, f"a token would take over {self.tpot_s:g} s")
        return WELCOME

    def _decoding(self, i: int, view: View, ttft_s: float, now: float) -> float:
        """Jobs that decode with this one."""
        running, waiting = view.column("running", now)[i], view.column("waiting", now)[i]
        if not self.decode_s:
            return running + 1
        return running * max(0.0, 1 - ttft_s / self.decode_s) + waiting + 1


class DeadlineDrop:
    """Rejects whose deadline cannot be met any more, by what the pool was seen to do.

    The jobs ahead of it are over at the rate at which jobs were over lately while others waited (exponentially
    forgotten over `memory` jobs); a job enters if its deadline is later than that. How long nothing is over tells how
    fast the pool is only while somebody waits: those who did at the last arrival, less those who are over since.
    Nothing is known of the hardware, so until `memory` such times were seen everybody enters, and so does whoever has
    no deadline.
    """

    def __init__(self, memory: int = 50) -> None:
        if memory < 1:
            raise BadInput(f"memory of DeadlineDrop is {memory}: it must learn from at least 1 job.")
        self.memory = memory
        self._seen = 0
        self._gap_s = 0.0
        self._ahead = 0
        self._last = -inf

    def admit(self, job: Job, view: View, now: float) -> Verdict:
        waiting = view.column("waiting", now)
        ahead = self._ahead = sum([waiting[i] for i in alive(view, now)])
        if job.deadline == inf or self._seen < self.memory:
            return WELCOME
        if now + ahead * self._gap_s <= job.deadline:
            return WELCOME
        return Verdict(False, None, "its deadline cannot be met")

    def over(self, job: Job, tokens_out: int, now: float) -> None:
        """Jobs that were served tell how fast they go."""
        if not tokens_out:
            return
        if self._last > -inf:
            self._seen += 1
            weight = 1 / min(self._seen, self.memory)
            self._gap_s += weight * (now - self._last - self._gap_s)
        self._ahead -= 1
        self._last = now if self._ahead > 0 else -inf

"""An account of who was served while two tenants waited, kept beside a queue: exact, event by event."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from airi_sim.core.types import Job


class Ledger:
    """Looks like the queue to a server. `worst` is the largest change of W_f/w_f - W_g/w_g over an interval in which f
    and g both have jobs waiting, W being `w_in` a token of an admitted prompt and `w_out` a decoded token."""

    account = "tenant"

    def __init__(
        self, queue: Any, weights: Mapping[str, float] | None = None, w_in: float = 1, w_out: float = 2
    ) -> None:
        self.queue, self.weights, self.w_in, self.w_out = queue, weights or {}, w_in, w_out
        self.booked = getattr(queue, "account", None) is not None
        self.timeless = bool(queue.timeless)
        self.waiting: dict[str, int] = {}
        self.served: dict[str, float] = {}
        self.spans: dict[tuple[str, str], tuple[float, float]] = {}
        self.worst = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.queue, name)

    def push(self, job: Job, now: float) -> None:
        self.waiting[job.tenant] = self.waiting.get(job.tenant, 0) + 1
        self.queue.push(job, now)
        self._look()

    def requeue(self, job: Job, now: float) -> None:
        raise AssertionError("the bounds hold without preemption: these worlds must have none")

    def pop(self, now: float) -> Job:
        job: Job = self.queue.pop(now)
        self._serve(job.tenant, self.w_in * job.tokens)
        self._look()
        self.waiting[job.tenant] -= 1
        self._look()
        return job

    def serve(self, decoding: Mapping[str, int], passes: int) -> None:
        for tenant, jobs in decoding.items():
            self._serve(tenant, self.w_out * jobs * passes)
        if self.booked:
            self.queue.serve(decoding, passes)
        self._look()

    def _serve(self, tenant: str, tokens: float) -> None:
        self.served[tenant] = self.served.get(tenant, 0.0) + tokens / self.weights.get(tenant, 1.0)

    def _look(self) -> None:
        for pair in combinations(sorted(self.waiting), 2):
            f, g = pair
            if not (self.waiting[f] and self.waiting[g]):
                self.spans.pop(pair, None)
                continue
            ahead = self.served.get(f, 0.0) - self.served.get(g, 0.0)
            least, most = self.spans.get(pair, (ahead, ahead))
            self.spans[pair] = least, most = min(least, ahead), max(most, ahead)
            self.worst = max(self.worst, most - least)

    def __len__(self) -> int:
        return len(self.queue)


def bound(rows: Any, weights: Mapping[str, float] | None = None, w_in: float = 1, w_out: float = 2) -> float:
    """2 max(w_in * longest prompt, w_out * most tokens in a running batch) / least weight (Sheng et al., OSDI 2024,
    theorem 4.4), from the job rows of a log."""
    spans = [(row[7], row[9], row[10] + row[11]) for row in rows]
    events = sorted([(at, 1, tokens) for at, _, tokens in spans] + [(at, 0, -tokens) for _, at, tokens in spans])
    most = running = 0
    for _, _, change in events:
        running += change
        most = max(most, running)
    return 2 * max(w_in * max(row[10] for row in rows), w_out * most) / min([1.0, *(weights or {}).values()])

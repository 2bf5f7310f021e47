"""Routers that look at how busy replicas are, by their queues, their tokens, their memory, or the work in store."""

from __future__ import annotations

import random

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import Predictor, View
from airi_sim.core.types import Job
from airi_sim.policies.predictors import optional
from airi_sim.policies.routers.common import alive, least


class Jsq:
    """Join the shortest queue: the fewest jobs waiting and running; ties go to the lowest index.

    Best of the queue-counting rules while the view is fresh; on a stale view it herds everybody onto one replica.
    """

    def route(self, job: Job, view: View, now: float) -> int:
        return least(view.column("outstanding", now), view.column("up", now))


class PowerOfTwo:
    """Power of d choices (Mitzenmacher 2001): of `d` replicas drawn with replacement the one with the shortest queue.

    Ties go to the one drawn first, else idle replicas of high index would never be used. Herds far less than JSQ
    on a stale view. If all that were drawn are down, the shortest queue among the rest.
    """

    def __init__(self, seed: int, d: int = 2) -> None:
        if d < 1:
            raise BadInput(f"d of PowerOfTwo is {d}: draw at least 1 replica.")
        self.d = d
        self._draw = random.Random(seed).random

    def route(self, job: Job, view: View, now: float) -> int:
        loads, up = view.column("outstanding", now), view.column("up", now)
        best = -1
        for _ in range(self.d):
            pick = int(self._draw() * view.n)
            if up[pick] and (best < 0 or loads[pick] < loads[best]):
                best = pick
        return best if best >= 0 else least(loads, up)


class Jiq:
    """Join the idle queue (Lu et al., Performance Evaluation 2011): the first idle replica, else one at random.

    Idle is who has nothing, and was sent nothing since the view was published. Almost as good as JSQ at low load with
    next to no messages; at high load nobody is idle and it is as blind as random.
    """

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed).random

    def route(self, job: Job, view: View, now: float) -> int:
        loads, sent = view.column("outstanding", now), view.column("sent", now)
        candidates = alive(view.column("up", now))
        idle = next((i for i in candidates if not loads[i] and not sent[i]), None)
        return candidates[int(self._draw() * len(candidates))] if idle is None else idle


class TokenJsq:
    """The fewest prompt tokens waiting, then the fewest jobs, then the lowest index (splitwise-sim; Patel et al., ISCA
    2024). Prompts are far from equally long, so tokens tell more than jobs about when it will be one's turn."""

    def route(self, job: Job, view: View, now: float) -> int:
        tokens, jobs = view.column("queued_tokens", now), view.column("outstanding", now)
        return min(alive(view.column("up", now)), key=lambda i: (tokens[i], jobs[i], i))


class LeastKv:
    """The least share of KV blocks in use, then the fewest jobs, then the lowest index.

    Jobs that wait hold no memory yet, so this herds as soon as all replicas have queues; load balancers that scrape
    `kv_cache_usage` have the same blind spot.
    """

    def route(self, job: Job, view: View, now: float) -> int:
        used, total = view.column("kv_used_blocks", now), view.column("kv_total_blocks", now)
        jobs = view.column("outstanding", now)
        return min(alive(view.column("up", now)), key=lambda i: (used[i] / max(1, total[i]), jobs[i], i))


class VllmDp:
    """The least 4 * waiting + running (the load balancer between data-parallel engines of vLLM).

    The view is refreshed every 100 ms there (`view.period_s=0.1`); what was sent since counts as waiting, so that a
    burst between two refreshes does not go to one engine. Ties go to the lowest index.
    """

    def route(self, job: Job, view: View, now: float) -> int:
        waiting, running, sent = (view.column(name, now) for name in ("waiting", "running", "sent"))
        scores = [4 * (w + s) + r for w, r, s in zip(waiting, running, sent, strict=True)]
        return least(scores, view.column("up", now))


class LeastWork:
    """The least work in store: what was sent there and is not over, by prompt tokens and predicted output tokens.

    Least work left, as far as a router can know it: a job counts in full until it is over. An output token costs
    `output` times as much as a prompt token. `predictor` says how many a job emits (null: the mean of all that are
    over, `expected` while nobody is), at most its budget. Ties go to the lowest index.
    """

    def __init__(self, output: float = 2.0, predictor: Predictor | None = None, expected: int = 256) -> None:
        if not output >= 0 or expected < 1:
            raise BadInput("LeastWork needs output >= 0 and expected >= 1 tokens.")
        self.output = output
        self.predictor = optional(predictor, "LeastWork")
        self._tokens, self._over = expected, 1
        self._stores: list[int] = []
        self._sent: dict[int, tuple[int, int]] = {}

    def route(self, job: Job, view: View, now: float) -> int:
        stores = self._stores = self._stores or [0] * view.n
        self._forget(job)
        choice = least(stores, view.column("up", now))
        work = round(job.tokens + self.output * min(job.budget, self._predicted(job)))
        stores[choice] += work
        self._sent[job.id] = choice, work
        return choice

    def over(self, job: Job, tokens_out: int, now: float) -> None:
        """It is work no more; how long it was is remembered."""
        if self._forget(job) and tokens_out:
            self._tokens += tokens_out
            self._over += 1

    def _forget(self, job: Job) -> bool:
        sent = self._sent.pop(job.id, None)
        if sent is not None:
            self._stores[sent[0]] -= sent[1]
        return sent is not None

    def _predicted(self, job: Job) -> float:
        return self._tokens / self._over if self.predictor is None else self.predictor.predict(job)

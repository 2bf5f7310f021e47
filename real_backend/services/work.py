"""What the services of a backend have in common: the work of their pools, and its calibration samples."""

from __future__ import annotations

from itertools import accumulate
from typing import Any, NamedTuple, Protocol

import numpy as np

from airi_sim.core.protocols import Script
from airi_sim.core.types import Call, Job, Plan, Request
from airi_sim.hardware.service import many
from real_backend.calibrate import ALIKE_SHARE, WARM_UP, Limits, Range, Sample, about, log_uniform
from real_backend.clock import Clock, Stopwatch
from real_backend.results import Result, Results

ITEMS = 16
"""Most items of a job in a sample from the whole range, where no run has had more."""


class Task(NamedTuple):
    """One job with what it works on."""

    job: Job
    given: Any


class Service(Protocol):
    """What a pool does for a batch of jobs; its replicas share it."""

    def read(self, job: Job, script: Script) -> Any:
        """What the job works on, from its prompt and its inputs; not timed."""
        ...

    def invent(self, job: Job) -> Any:
        """Something of the same size for a calibration sample; not timed."""
        ...

    def serve(self, tasks: list[Task], watch: Stopwatch) -> list[Result]:
        """The results in order, with laps after preparation and after the forward."""
        ...


class ServiceWork:
    """A batch of jobs, all at once."""

    detailed = False

    def __init__(self, service: Service, script: Script, results: Results) -> None:
        self.service = service
        self.script = script
        self.results = results
        self._tasks: list[Task] = []

    def prepare(self, plan: Plan) -> None:
        self._tasks = [Task(job, self.service.read(job, self.script)) for job, _ in plan.slices]

    def run(self, plan: Plan, watch: Stopwatch) -> list[Result]:
        return self.service.serve(self._tasks, watch)

    def commit(self, plan: Plan, found: list[Result]) -> list[Job]:
        jobs = [job for job, _ in plan.slices]
        for job, result in zip(jobs, found, strict=True):
            self.results.put(job, result)
        return jobs

    def drop(self, job: int) -> None:
        """Nothing is kept between plans."""


class ServiceProbe:
    """Samples of a service of some `kind`: batches that resemble the last one, and some from the whole range in use."""

    def __init__(self, service: Service, kind: str, clock: Clock, limits: Limits, seed: int) -> None:
        self.service = service
        self.kind, self.many = kind, many(kind)
        self.clock = clock
        self.range = Range(limits)
        self.items = 1
        self.random = np.random.default_rng(seed)
        self.samples: list[Sample] = []
        for _ in range(WARM_UP):
            self._measure([self._job(1, 1)])

    def follow(self, plan: Plan) -> None:
        jobs = [job for job, _ in plan.slices]
        self.items = max(self.items, *(job.items for job in jobs))
        self.range.note(len(jobs), max(self._size(job) for job in jobs), plan.prefill_tokens)
        if self.random.random() < ALIKE_SHARE:
            self._sample(self._alike(jobs))
        else:
            self.take()

    def widen(self) -> None:
        self.range.widen()
        self.items = max(self.items, ITEMS)

    def take(self) -> None:
        longest = log_uniform(self.random, self.range.context)
        count = log_uniform(self.random, self.range.sequences)
        sizes = self.random.integers(1, longest + 1, count).tolist()
        self._sample(self._that_fit([self._job(size, log_uniform(self.random, self.items)) for size in sizes]))

    def _that_fit(self, jobs: list[Job]) -> list[Job]:
        """As many as the server would take into a batch, at least one."""
        upto = accumulate(job.tokens for job in jobs)
        return [job for job, tokens in zip(jobs, upto, strict=True) if tokens <= self.range.tokens or job is jobs[0]]

    def _alike(self, jobs: list[Job]) -> list[Job]:
        """About as many jobs of about such sizes."""
        count = min(about(self.random, len(jobs)), self.range.sequences)
        picks = [jobs[i] for i in self.random.integers(len(jobs), size=count)]
        return [
            self._job(
                min(about(self.random, self._size(job)), self.range.context),
                about(self.random, job.items) if self.many else job.items,
            )
            for job in picks
        ]

    def _size(self, job: Job) -> int:
        """Tokens of one item."""
        return max(1, job.tokens // job.items) if self.many else job.tokens

    def _job(self, size: int, items: int) -> Job:
        tokens = size * items if self.many else size
        return Job(Request(-1, 0.0, tokens), Call(self.kind, tokens, items=items), len(self.samples), 0.0)

    def _sample(self, jobs: list[Job]) -> None:
        tokens = [job.tokens for job in jobs]
        plan = Plan(-1, 0.0, list(zip(jobs, tokens, strict=True)), [], prefill_tokens=sum(tokens))
        self.samples.append(Sample(plan, self._measure(jobs)))

    def _measure(self, jobs: list[Job]) -> float:
        tasks = [Task(job, self.service.invent(job)) for job in jobs]
        watch = Stopwatch(self.clock)
        self.service.serve(tasks, watch)
        return watch.stop().seconds

"""The measured executors: what the runtime decided, done by torch, timed by a clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from airi_sim.core.protocols import Script
from airi_sim.core.types import Job, Outcome, Plan, Row
from real_backend.calibrate import Probe
from real_backend.clock import Clock, Split, Stopwatch
from real_backend.runner import Runner
from real_backend.sequences import Sequences

Record = Callable[[Plan, float, Split], None]


class Work(Protocol):
    """What a kind of pool does with a plan. Optional `advanced`: tokens by job of the plan that was committed last,
    where that may be another number than one (speculation)."""

    detailed: bool

    def prepare(self, plan: Plan) -> None:
        """Whatever is not the server's work (making prompts up); not timed."""
        ...

    def run(self, plan: Plan, watch: Stopwatch) -> Any:
        """Do it, with laps after preparation and forward; what it returns is handed to `commit`."""
        ...

    def commit(self, plan: Plan, found: Any) -> list[Job]:
        """The plan is over: keep what was found; returns the jobs that stop, in order of the plan."""
        ...

    def drop(self, job: int) -> None:
        """Forget a job (by id) that was cancelled."""
        ...


class TorchExecutor:
    """`Executor` of one replica: every plan is one pass, run when it starts, and lasts as long as it was measured.

    After each measured pass `probe` runs one of its own, whose time is a calibration sample and not part of the run.
    """

    def __init__(self, work: Work, clock: Clock, record: Record, probe: Probe | None = None) -> None:
        self.detailed = work.detailed
        self.work = work
        self.clock = clock
        self.record = record
        self.probe = probe
        self._flights: dict[Plan, tuple[Any, float]] = {}

    def start(self, plan: Plan, now: float) -> float:
        """Run one pass, whatever `plan.repeat` permits; returns now plus the seconds measured.

        Plans whose server died are never finished; they are forgotten here.
        """
        self.work.prepare(plan)
        watch = Stopwatch(self.clock)
        found = self.work.run(plan, watch)
        split = watch.stop()
        self._flights = {flight: kept for flight, kept in self._flights.items() if flight.live}
        self._flights[plan] = found, split.seconds
        self.record(plan, now, split)
        if self.probe is not None:
            self.probe.follow(plan)
        return now + split.seconds

    def cut(self, plan: Plan, now: float, more: int = 0) -> float | None:
        """A single pass has no earlier end."""
        return None

    def progress(self, plan: Plan, now: float) -> int:
        """No pass is complete before the end of a plan of one."""
        return 0

    def finish(self, plan: Plan, now: float) -> Outcome:
        """What the pass did; only now do its tokens count, so a plan that is aborted leaves no trace."""
        found, seconds = self._flights.pop(plan)
        stopped = self.work.commit(plan, found)
        return Outcome(1, stopped, seconds, getattr(self.work, "advanced", None))

    def drop(self, job: int) -> None:
        """Forget a job (by id) that was cancelled."""
        self.work.drop(job)

    def leaks(self) -> list[str]:
        """What is still under way although the run is over; plans whose server died are not."""
        return [f"server {plan.server} has a {plan.kind} plan in flight" for plan in self._flights if plan.live]

    def share(self, cache: Any) -> None:
        """The server has a cache whose values the work keeps (look-ups of features)."""
        keep = getattr(self.work, "share", None)
        if keep is not None:
            keep(cache)

    def bring(self, load: Any) -> None:
        """Of a loader: a model that is to be there when the run begins, untimed."""
        self.work.bring(load)  # type: ignore[attr-defined]


class GenerateWork:
    """Prompt chunks and decodes of a language model, all rows of a plan in one forward."""

    detailed = True

    def __init__(self, runner: Runner, script: Script, sequences: Sequences) -> None:
        self.runner = runner
        self.script = script
        self.sequences = sequences

    def prepare(self, plan: Plan) -> None:
        for row in rows_of(plan):
            self.sequences.open(row.job, self.script, self.runner.model.spec.vocab)

    def run(self, plan: Plan, watch: Stopwatch) -> dict[int, int]:
        if plan.copies is not None:
            self.runner.cache.copy(plan.copies)
        return self.runner.run([self.sequences.segment(row) for row in rows_of(plan)], watch)

    def commit(self, plan: Plan, found: dict[int, int]) -> list[Job]:
        rows = rows_of(plan)
        return [rows[index].job for index in sorted(found) if self.sequences.extend(rows[index].job, found[index])]

    def drop(self, job: int) -> None:
        self.sequences.drop(job)


def rows_of(plan: Plan) -> list[Row]:
    """The rows of a plan; ValueError if the server did not fill them."""
    if not plan.rows:
        raise ValueError(f"a {plan.kind} plan of server {plan.server} has no rows, which a detailed executor needs")
    return plan.rows

"""Executors whose plans are run by worker processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from time import perf_counter
from typing import Any, Literal

from airi_sim.core.errors import BadInput
from airi_sim.core.types import Copies, Outcome, Plan
from airi_sim.models.spec import ModelSpec
from real_backend.batch import Segment
from real_backend.calibrate import GenerateProbe, Probe, Shape
from real_backend.channel import Answer, encode
from real_backend.clock import Stopwatch, ThreadClock
from real_backend.executor import Record, Work
from real_backend.workers import Crew, Lost, slowest

News = Literal["", "over", "idle", "down", "up"]
UNUSED = Stopwatch(ThreadClock())
"""For work that is timed where it is done."""


@dataclass(frozen=True)
class Architecture:
    """What this side knows of a model that lives elsewhere."""

    spec: ModelSpec


class RemoteCache:
    """A `PagedKV` that lives elsewhere: what is copied in it goes with the pass that follows."""

    def __init__(self, kv_blocks: int, block_size: int) -> None:
        self.kv_blocks = kv_blocks
        self.block_size = block_size
        self._copies: Copies | None = None

    def copy(self, copies: Copies) -> None:
        """Before the next pass."""
        self._copies = copies

    def taken(self) -> Copies | None:
        """The copies of this pass."""
        copies, self._copies = self._copies, None
        return copies


class RemoteRunner:
    """A `Runner` in the workers of a crew, on the cache at `place`: `run` only asks, the crew has the answer."""

    def __init__(self, crew: Crew, place: int) -> None:
        task = crew.tasks[0]
        assert task.pool.model is not None
        self.crew = crew
        self.place = place
        self.model = Architecture(task.pool.model)
        self.cache = RemoteCache(task.caches[place][0], task.pool.block_size)

    def run(self, segments: Sequence[Segment], watch: Stopwatch) -> None:
        """Send a pass; Lost if it is not taken."""
        self.crew.ask(encode(self.place, segments, self.cache.block_size, self.cache.taken()))


class RemoteProbe(GenerateProbe):
    """Calibration passes in the workers of a pool's first replica, on scratch memory there."""

    runner: Any

    def follow(self, plan: Plan) -> None:
        """As everywhere; without a sample while those workers are gone."""
        with suppress(Lost):
            super().follow(plan)

    def _measure(self, shape: Shape) -> float:
        self.runner.run(self._segments(shape), UNUSED)
        return slowest(self.runner.crew.answers())[1].seconds


class RemoteExecutor:
    """`Executor` of one replica that lives in worker processes: `start` waits until its pass is over, which lasts as
    long as the slowest rank worked on it.

    A worker that dies, or is silent for `backend.hang_s`, fails the plan in flight, and the runtime takes the server
    down. With `restart` other processes take its place, and the server is up again when they have loaded.

    `tell` hears a sentence of each such incident; `probe` makes what takes calibration samples after measured passes.
    """

    detailed = True

    def __init__(
        self,
        work: Work,
        crew: Crew,
        record: Record,
        tell: Callable[[str], None],
        *,
        restart: bool = False,
        probe: Callable[[], Probe] | None = None,
    ) -> None:
        self.work, self.crew, self.record, self.tell = work, crew, record, tell
        self.restart = restart
        self.probe: Probe | None = None
        self.driver: Any = None
        self._make_probe = probe
        self._over: tuple[Any, float] = None, 0.0

    def connect(self, driver: Any) -> None:
        """Called once by the driver, when all executors are made: wait until the workers have loaded."""
        self.driver = driver
        try:
            self.crew.ready()
            self.probe = self._make_probe() if self._make_probe is not None else None
        except Lost as lost:
            raise BadInput(f"{lost} while it loaded: take a smaller model, or fewer worker processes.") from lost

    def start(self, plan: Plan, now: float) -> float:
        """Have one pass run; now plus the seconds measured, or those that passed until a loss was noticed."""
        began = perf_counter()
        try:
            self._send(plan)
            self._land(plan, self.crew.answers())
        except Lost as lost:
            self._over = lost, perf_counter() - began
        else:
            if self.probe is not None:
                self.probe.follow(plan)
        return now + self._over[1]

    def cut(self, plan: Plan, now: float, more: int = 0) -> float | None:
        """A single pass has no earlier end."""
        return None

    def progress(self, plan: Plan, now: float) -> int:
        """No pass is complete before the end of a plan of one."""
        return 0

    def finish(self, plan: Plan, now: float) -> Outcome:
        """What the pass did, or why it failed. A plan whose server died meanwhile is never finished."""
        found, seconds = self._over
        if not isinstance(found, Lost):
            return Outcome(1, self.work.commit(plan, found), seconds)
        self._bury(found)
        self._return(plan.server, now)
        return Outcome(0, [], 0.0, None, str(found))

    def drop(self, job: int) -> None:
        """Forget a job (by id) that was cancelled."""
        self.work.drop(job)

    def leaks(self) -> list[str]:
        """Processes that are left although the run is over."""
        return [f"worker process {process.pid} of {self.crew.name} is left" for process in self.crew.processes]

    def _send(self, plan: Plan) -> None:
        self.work.prepare(plan)
        self.work.run(plan, UNUSED)

    def _land(self, plan: Plan, answers: Sequence[Answer]) -> None:
        found, split = slowest(answers)
        self._over = found, split.seconds
        self.record(plan, plan.start, split)

    def _bury(self, lost: Lost, again: bool = True) -> None:
        """Nothing is left of the crew; perhaps another one begins."""
        self.tell(str(lost))
        if again and self.restart:
            with suppress(Lost):
                self.crew.begin()

    def _return(self, server: int, now: float) -> None:
        """The server is up again after as many seconds as loading took the new workers of CPU time."""
        if not self.crew.loading:
            return
        try:
            at = now + self.crew.ready()
        except (Lost, BadInput) as error:
            self.tell(str(error))
            self.crew.end()
            return
        self.driver.at(at, lambda: self.driver.runtime.server_up(server, at))


class OpenExecutor(RemoteExecutor):
    """For the wall driver (`wall.Remote`): plans are launched, and what comes of them is heard of later."""

    _flight: Plan | None = None
    _missed: Lost | None = None

    @property
    def busy(self) -> bool:
        """A pass is under way, perhaps one whose server died meanwhile."""
        return self._flight is not None

    @property
    def due(self) -> float:
        """When (by `perf_counter`) to listen even if nothing can be heard."""
        return -inf if self._missed is not None else self.crew.due

    @property
    def channels(self) -> Sequence[Any]:
        """What has something to read when there is something to hear."""
        return self.crew.channels

    def launch(self, plan: Plan, now: float) -> None:
        """Begin a pass."""
        self._flight = plan
        try:
            self._send(plan)
        except Lost as lost:
            self._missed = lost

    def hear(self) -> News:
        """What happened: the plan is over (`finish` says how); it is, but its server had died; the workers are gone;
        others have taken their place; or nothing."""
        try:
            if self._missed is not None:
                raise self._missed
            loading, answers = self.crew.loading, self.crew.hear()
        except Lost as lost:
            return self._lose(lost)
        if answers is None:
            return ""
        return "up" if loading else self._settle(answers)

    def _settle(self, answers: Sequence[Answer]) -> News:
        plan, self._flight = self._flight, None
        if plan is None or not plan.live:
            return "idle"
        self._land(plan, answers)
        return "over"

    def _lose(self, lost: Lost) -> News:
        plan, self._flight, self._missed = self._flight, None, None
        if plan is not None and plan.live:
            self._over = lost, 0.0
            return "over"
        before = self.crew.loading
        self._bury(lost, again=not before)
        return "" if before else "down"

    def _return(self, server: int, now: float) -> None:
        """`hear` will tell."""

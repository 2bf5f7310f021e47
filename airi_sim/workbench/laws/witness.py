"""Stand-ins that look like the policy to the runtime, pass every call on, and check what it did with its arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isnan
from typing import Any

from airi_sim.core.types import Horizon, Job, Verdict
from airi_sim.runtime.hooks import claims
from airi_sim.workbench.laws.ran import Breach
from airi_sim.workbench.laws.sentry import Sentry

FIELDS = Job.__slots__
DRAFTED = ("tokens", "preemptions")
"""What a server itself changes on a job that is preempted during a draft."""
Snapshot = tuple[Any, ...]


def snapshot(job: Job, without: tuple[str, ...] = ()) -> Snapshot:
    """The public fields of a job."""
    return tuple([getattr(job, field) for field in FIELDS if field not in without])


def compare_job(method: str, job: Job, before: Snapshot, without: tuple[str, ...] = ()) -> None:
    """Breach if a field is not what it was."""
    after = snapshot(job, without)
    if after != before:
        names = [field for field in FIELDS if field not in without]
        name, old, new = next((n, b, a) for n, b, a in zip(names, before, after, strict=True) if a != b)
        raise Breach("purity", f"{method} changed {name} of job {job.id} from {old!r} to {new!r}: jobs are read only")


class Glass:
    """The view with nothing but what the protocol promises; remembers what it handed out."""

    def __init__(self, board: Any) -> None:
        self.n = board.n
        self.block = board.block
        self._board = board
        self._shown: list[tuple[str, Any, list[int]]] = []

    def column(self, name: str, now: float) -> Any:
        column = self._board.column(name, now)
        self._shown.append((name, column, list(column)))
        return column

    def matched(self, replica: int, job: Job) -> int:
        return int(self._board.matched(replica, job))

    def compare(self, method: str) -> None:
        """Breach if the policy wrote into it."""
        if (self.n, self.block) != (self._board.n, self._board.block):
            raise Breach("purity", f"{method} changed n or block of the view: the view is read only")
        for name, column, before in self._shown:
            if list(column) != before:
                raise Breach("purity", f"{method} wrote into column '{name}' of the view: the view is read only")


class Witness:
    """What all have: attributes are those of the policy, calls go through the sentry. `name` is the policy's."""

    wrapped: tuple[str, ...] = ()

    def __init__(self, policy: Any) -> None:
        self.policy = policy
        self.sentry = Sentry()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.policy, name)
        return getattr(self, f"_{name}") if name in self.wrapped and callable(value) else value

    def call(self, method: str, *arguments: Any) -> Any:
        """A method of the policy; jobs among the arguments must come back as they went in."""
        jobs = [(job, snapshot(job)) for job in arguments if isinstance(job, Job)]
        answer = self.sentry.call(f"{method}()", getattr(self.policy, method), *arguments)
        for job, before in jobs:
            compare_job(f"{method}()", job, before)
        return answer


class QueueWitness(Witness):
    """Keeps its own list of who waits. `peeks`: how often it asks for each answer."""

    wrapped = ("stable", "serve", "remove", "over", "contest", "overtakes")

    def __init__(self, policy: Any) -> None:
        super().__init__(policy)
        self.held: dict[int, tuple[Job, Snapshot]] = {}

    def push(self, job: Job, now: float) -> None:
        self._enter("push", job, now)

    def requeue(self, job: Job, now: float) -> None:
        self._enter("requeue", job, now)

    def _enter(self, method: str, job: Job, now: float) -> None:
        self.call(method, job, now)
        self.held[job.id] = (job, snapshot(job))
        self._count(f"{method}()")

    def peek(self, now: float) -> Job | None:
        first, again = self.call("peek", now), self.call("peek", now)
        if first is not again:
            raise Breach("purity", f"peek() answered {first!r} and, asked again at once, {again!r}: peek must be pure")
        if first is not None:
            self._known("peek()", first)
        self._count("peek()")
        return first

    def pop(self, now: float) -> Job:
        expected = self.call("peek", now)
        job = self.call("pop", now)
        if job is not expected:
            raise Breach("protocol", f"pop() took {job!r} although peek() had promised {expected!r}")
        self._known("pop()", job)
        del self.held[job.id]
        self._count("pop()")
        return job

    def _remove(self, job: Job, now: float) -> None:
        self.call("remove", job, now)
        self.held.pop(job.id, None)
        self._count("remove()")

    def _serve(self, decoding: Mapping[str, int], passes: int) -> None:
        before = dict(decoding)
        self.call("serve", decoding, passes)
        if dict(decoding) != before:
            raise Breach("purity", "serve() changed the mapping `decoding`: it is read only")

    def _stable(self, now: float, decoding: Mapping[str, int]) -> Horizon:
        before = dict(decoding)
        horizon = self.call("stable", now, decoding)
        if dict(decoding) != before:
            raise Breach("purity", "stable() changed the mapping `decoding`: it is read only")
        return check_horizon(horizon)

    def _over(self, job: Job, tokens_out: int, now: float) -> None:
        self.call("over", job, tokens_out, now)
        self._count("over()")

    def _contest(self, draft: Any, now: float) -> tuple[Job | None, Horizon]:
        answer = self.call("contest", draft, now)
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise Breach("protocol", f"contest() answered {answer!r}: it must return (job or None, Horizon)")
        loser, horizon = answer
        if loser is not None and draft.preemptible.get(getattr(loser, "id", None)) is not loser:
            raise Breach("bounds", f"contest() answered {loser!r}, which is not one of draft.preemptible")
        return loser, check_horizon(horizon, "contest()")

    def _overtakes(self, draft: Any, job: Job, now: float) -> bool:
        return bool(self.call("overtakes", draft, job, now))

    def _known(self, method: str, job: Any) -> None:
        job_id = getattr(job, "id", None)
        held = self.held.get(job_id) if isinstance(job_id, int) else None
        if held is None or held[0] is not job:
            raise Breach(
                "conservation", f"{method} answered {job!r}, which is not among the jobs that wait in this queue"
            )
        compare_job("the queue", *held)

    def _count(self, method: str) -> None:
        if len(self) != len(self.held):
            raise Breach(
                "conservation", f"after {method} the queue says it holds {len(self)} jobs, but {len(self.held)} wait"
            )

    def __len__(self) -> int:
        return int(self.sentry.call("len()", self.policy.__len__))


def check_horizon(horizon: Any, method: str = "stable()") -> Horizon:
    """A Horizon of whole passes, or Breach."""
    if not isinstance(horizon, Horizon) or not isinstance(horizon.passes, int) or isnan(horizon.until):
        raise Breach("protocol", f"{method} answered {horizon!r}: it must return Horizon(passes, until)")
    return horizon


class Hearing(Witness):
    """Those that may want to hear when jobs are over."""

    wrapped = ("over",)

    def _over(self, job: Job, tokens_out: int, now: float) -> None:
        self.call("over", job, tokens_out, now)


class RouterWitness(Hearing):
    def route(self, job: Job, view: Any, now: float) -> int:
        glass = Glass(view)
        choice = self.call("route", job, glass, now)
        glass.compare("route()")
        index = choice.__index__() if hasattr(choice, "__index__") else -1
        if not 0 <= index < view.n:
            raise Breach("bounds", f"route() answered {choice!r}: it must be an index from 0 to {view.n - 1}")
        up = view.column("up", now)
        if not up[index] and any(up):
            raise Breach("bounds", f"route() chose replica {index}, which is down, although others are up")
        return index


class AdmissionWitness(Hearing):
    def admit(self, job: Job, view: Any, now: float) -> Verdict:
        glass = Glass(view)
        verdict = self.call("admit", job, glass, now)
        glass.compare("admit()")
        return check_verdict("admit()", verdict)


class FaultWitness(Witness):
    def lost(self, job: Job, attempt: int, now: float) -> Verdict:
        return check_verdict("lost()", self.call("lost", job, attempt, now))


def check_verdict(method: str, verdict: Any) -> Verdict:
    """A Verdict whose `retry_s`, if any, lies ahead; or Breach."""
    if not isinstance(verdict, Verdict):
        raise Breach("bounds", f"{method} answered {verdict!r}: it must return a Verdict")
    if not verdict.admit and verdict.retry_s is not None and not 0 < verdict.retry_s < float("inf"):
        raise Breach("bounds", f"{method} answered retry_s={verdict.retry_s}: it must be more than 0 s, and finite")
    return verdict


class ModelRouterWitness(Hearing):
    def choose(self, job: Job, pools: Mapping[str, Any], now: float) -> str:
        glasses = {name: Glass(board) for name, board in pools.items()}
        choice = self.call("choose", job, shown := dict(glasses), now)
        if shown != glasses:
            raise Breach("purity", "choose() changed the mapping `pools`: it is read only")
        for glass in glasses.values():
            glass.compare("choose()")
        if choice not in pools:
            raise Breach("bounds", f"choose() answered {choice!r}: it must be one of {', '.join(pools)}")
        return str(choice)


class PlacementWitness(Witness):
    wrapped = ("first", "refuse", "wake")

    def _first(self, fleet: Any) -> Any:
        return self.call("first", fleet)

    def _refuse(self, model: str, fleet: Any, now: float) -> str:
        reason = self.call("refuse", model, fleet, now)
        if not isinstance(reason, str):
            raise Breach("protocol", f"refuse() answered {reason!r}: it must be a sentence, or nothing")
        return reason

    def _wake(self, fleet: Any, now: float) -> float:
        at = self.call("wake", fleet, now)
        if not isinstance(at, int | float) or isnan(at):
            raise Breach("protocol", f"wake() answered {at!r}: it must be seconds")
        return float(at)

    def place(self, fleet: Any, wanted: Mapping[str, Job], now: float) -> Any:
        before = [(job, snapshot(job)) for job in wanted.values()]
        actions = self.call("place", fleet, shown := dict(wanted), now)
        if list(shown.items()) != list(wanted.items()):
            raise Breach("purity", "place() changed the mapping `wanted`: it is read only")
        for job, fields in before:
            compare_job("place()", job, fields)
        return actions


class EvictorWitness(Witness):
    def victim(self, running: Mapping[int, Job], now: float) -> Job:
        before = [(job, snapshot(job)) for job in running.values()]
        victim = self.call("victim", running, now)
        if [job.id for job, _ in before] != list(running):
            raise Breach("purity", "victim() changed the mapping `running`: it is read only")
        for job, fields in before:
            compare_job("victim()", job, fields)
        if not any(victim is job for job, _ in before):
            raise Breach("bounds", f"victim() answered {victim!r}, which is not one of the running jobs")
        return victim


class CacheWitness(Witness):
    wrapped = ("use", "free")

    def _use(self, prompt: Sequence[Any], places: Sequence[int]) -> None:
        self.call("use", prompt, places)

    def _free(self, units: Sequence[Any]) -> None:
        before = list(units)
        self.call("free", units)
        if list(units) != before:
            raise Breach("purity", "free() changed the list `units`: it is read only")

    def victims(self, idle: Mapping[Any, None], n: int) -> Any:
        before = list(idle)
        gone = self.call("victims", idle, n)
        if list(idle) != before:
            raise Breach("purity", "victims() changed the mapping `idle`: it is read only")
        if not isinstance(gone, Sequence) or len(set(gone)) != n or len(gone) != n or not set(gone) <= set(before):
            raise Breach("bounds", f"victims() answered {gone!r}: it must be {n} different units of `idle`")
        return gone


class BatcherWitness(Witness):
    wrapped = ("stable",)

    def form(self, draft: Any, queue: Any, now: float) -> None:
        self._inspected(draft, "form", draft, queue, now)

    def _stable(self, draft: Any, queue: Any, now: float) -> Horizon:
        return check_horizon(self._inspected(draft, "stable", draft, queue, now))

    def _inspected(self, draft: Any, method: str, *arguments: Any) -> Any:
        before = [(job, snapshot(job, DRAFTED)) for job in draft.jobs.values()]
        answer = self.call(method, *arguments)
        for job, fields in before:
            compare_job(f"{method}()", job, fields, DRAFTED)
        return answer


WITNESSES: dict[str, type[Witness]] = {
    "router": RouterWitness,
    "queue": QueueWitness,
    "batcher": BatcherWitness,
    "evictor": EvictorWitness,
    "cache": CacheWitness,
    "admission": AdmissionWitness,
    "fault": FaultWitness,
    "model_router": ModelRouterWitness,
    "placement": PlacementWitness,
}


def witnessed(kind: str, make: Callable[[], Any], name: str) -> Callable[[], Any]:
    """Makes policies with a witness in front; to the runtime they carry the policy's own name, and its claims."""
    plain = kind == "batcher" and claims(make(), "plain", "form")
    stand_in = type(name, (WITNESSES[kind],), {"form": BatcherWitness.form, "plain": True} if plain else {})
    return lambda: stand_in(make())

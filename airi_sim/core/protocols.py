"""Every decision a policy can take, and the two seams (executor, cost model), as Protocols.

A policy is a plain class with these methods; no base class, no registry. Policies see jobs, numbers and `now`; they
read no clock, keep their own state, draw randomness only from a seed they were given, and never change a job.
Arguments a policy does not use may be ignored; `airi_sim.check_policy` tests the promises.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from airi_sim.core.types import Affine, Ended, Horizon, Job, Plan, Site, Verdict


class View(Protocol):
    """What the control plane may know about the replicas of a pool, as of the last publication tick. `n` replicas,
    `block` tokens in a KV block."""

    n: int
    block: int

    def column(self, name: str, now: float) -> Sequence[int]:
        """One number a replica, no copy: waiting, running, outstanding (their sum), queued_tokens (prompt tokens
        waiting), inflight_tokens (prompt tokens of all unfinished jobs there), kv_used_blocks, kv_total_blocks, up;
        and sent: jobs sent there since the other columns were published (0 where they are live)."""
        ...

    def matched(self, replica: int, job: Job) -> int:
        """Prefix tokens of `job` believed to be resident there (what was routed there, least recent forgotten)."""
        ...


class Router(Protocol):
    """Which replica. Called once for each job that enters a pool, and again if its replica died.

    Optional `over(job, tokens_out, now)`: a job is over, whichever way; called for every job of the run, also those
    that never came here.
    """

    def route(self, job: Job, view: View, now: float) -> int:
        """The index of the replica, 0 to view.n - 1."""
        ...


class Queue(Protocol):
    """Who is next. Called at pass boundaries only, except `push` (at arrival).

    `timeless` (default False): peek changes only by push, requeue, pop and over. `account` (default None): the Job
    field that service is booked on. `serve` and `stable` are needed only where `account` is set or the order moves.
    Optional `remove(job, now)`: the job was cancelled while waiting (else it is dropped when it becomes the head).
    Optional `over(job, tokens_out, now)`: a job that was popped here is over (finished or cancelled) with so many
    output tokens; called when a plan has ended, after its service was booked.

    `peek` may answer None although jobs wait: they are held back, and asked for again just after `stable(...).until`.
    """

    def push(self, job: Job, now: float) -> None:
        """A job arrived."""
        ...

    def requeue(self, job: Job, now: float) -> None:
        """A running job was preempted and waits again, usually at the front of its class."""
        ...

    def peek(self, now: float) -> Job | None:
        """The next job, or None. Pure, cheap, draws no random number."""
        ...

    def pop(self, now: float) -> Job:
        """Take out the job that peek returned; it is being admitted."""
        ...

    def __len__(self) -> int: ...


@runtime_checkable
class ChargedQueue(Protocol):
    """A queue that books service: `decoding[a]` jobs of account a took part in each of `passes` passes."""

    account: str | None

    def serve(self, decoding: Mapping[str, int], passes: int) -> None:
        """Called before every push and at the end of every plan, with passes not yet booked."""
        ...


@runtime_checkable
class StableQueue(Protocol):
    """A queue that knows how long its head stays the head."""

    def stable(self, now: float, decoding: Mapping[str, int]) -> Horizon:
        """How long peek stays the same job if nobody comes or goes and every pass is served as `decoding`."""
        ...


@runtime_checkable
class ContestingQueue(Protocol):
    """A queue whose head may take the place of a running job, if the batcher preempts (policies.preemption)."""

    def contest(self, draft: Draft, now: float) -> tuple[Job | None, Horizon]:
        """Called when the head finds no seat or no memory. The running job that should make way, or None and how long
        that stays so if nobody comes or goes and all who run decode."""
        ...


@runtime_checkable
class OvertakingQueue(Protocol):
    """A queue whose head may go before a prompt under way, which keeps its memory, if the batcher asks."""

    def overtakes(self, draft: Draft, job: Job, now: float) -> bool:
        """Called for each prompt under way before its next chunk."""
        ...


class Draft(Protocol):
    """A server while it drafts a pass: the server itself, seen narrowly.

    decoding   jobs that decode (implied: one token each, all or none)
    partial    prompts under way
    running    every admitted job by id, in order of admission
    preemptible  those of `running` that `preempt` may name: not who is on its way to another server
    paused     decoding jobs set aside by `pause`, by id
    budget     tokens left in this pass: starts at the server's max_num_batched_tokens, every call below takes its
               share; a batcher may lower it, never raise it above what is left
    seats      admissions left (max_num_seqs less running)
    available  KV blocks left to this pass, `total` all of them; a batcher may hold some back for a while
    block      tokens in a KV block
    passes     passes of this server so far
    preempted  somebody lost its memory in this pass
    sliced     some prompt takes part in this pass
    closed     set True: no arrival can change this pass or its repeats
    """

    budget: int
    available: int
    closed: bool

    @property
    def decoding(self) -> int: ...
    @property
    def partial(self) -> Sequence[Job]: ...
    @property
    def running(self) -> Mapping[int, Job]: ...
    @property
    def preemptible(self) -> Mapping[int, Job]: ...
    @property
    def paused(self) -> Mapping[int, Job]: ...
    @property
    def seats(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def block(self) -> int: ...
    @property
    def passes(self) -> int: ...
    @property
    def preempted(self) -> bool: ...
    @property
    def sliced(self) -> bool: ...

    def decode(self, now: float) -> None:
        """All decoding jobs take part; the evictor is asked until their growth fits."""
        ...

    def chunk(self, job: Job, now: float) -> bool:
        """As much of a prompt under way as budget and memory allow."""
        ...

    def admit(self, job: Job) -> bool:
        """First chunk of the job that peek returned; False: does not fit. Pop it when True."""
        ...

    def preempt(self, job: Job, now: float) -> None:
        """Its blocks back, the job to queue.requeue; it starts again from its tokens so far."""
        ...

    def pause(self, job: Job, now: float) -> None:
        """Set a decoding job aside; it keeps its memory and its seat."""
        ...

    def resume(self, job: Job, now: float) -> None:
        """Let a paused job decode again."""
        ...

    def attained(self, job: Job) -> int:
        """Output tokens of the job so far."""
        ...

    def filled(self, job: Job) -> int:
        """Tokens of a prompt under way that are in memory, cached ones included."""
        ...


class Batcher(Protocol):
    """What runs in the next pass. Composes it through a Draft and never loops over decoding jobs.

    `greedy` (default False): a pass that admits nothing stays so until someone stops, arrives or is evicted, or the
    head of the queue changes. `preempts` (default False): may evict although memory suffices. `plain` (default False,
    and not inherited by a class with a `form` of its own): all it does while nobody waits and no prompt is under way is
    `decode`, so a fast-forward run need not ask it. A batcher that is not greedy may have `stable(draft, queue, now) ->
    Horizon` (default one pass); when it runs nothing although jobs wait (size and time-out), `until` of that horizon is
    when it is asked again.
    """

    def form(self, draft: Draft, queue: Queue, now: float) -> None:
        """Called before each pass (or each run of equal passes)."""
        ...


@runtime_checkable
class StableBatcher(Protocol):
    """A batcher that knows how long its answer stays the same."""

    def stable(self, draft: Draft, queue: Queue, now: float) -> Horizon: ...


class Evictor(Protocol):
    """Whose memory goes."""

    def victim(self, running: Mapping[int, Job], now: float) -> Job:
        """One of `running` (in order of admission, never empty); asked only when a block is missing."""
        ...


@runtime_checkable
class SwappingEvictor(Protocol):
    """An evictor that also chooses between swapping and computing anew. Without this method all are swapped."""

    def swaps(self, job: Job, tokens: int, now: float) -> bool:
        """Whether the KV of `job`, so many tokens, moves to the host. Called when a running job loses its memory, for
        whatever reason, on a server whose host has room for it; False: it will be computed again."""
        ...


class Cache(Protocol):
    """Whose cached prefix goes. A unit is one hash of a prompt, worth one or more whole KV blocks.

    Optional `use(prompt, places)`: a job refers from now on to the units at these places of its prompt, found or just
    computed. Optional `free(units)`: nobody refers to these any more, the tail of a prompt first.
    """

    def victims(self, idle: Mapping[Hashable, None], n: int) -> Sequence[Hashable]:
        """`n` of `idle`, the units nobody refers to (what was freed first comes first); asked only when a KV block is
        missing. Asked twice for 1 and once for 2 it must name the same."""
        ...


class Admission(Protocol):
    """May this job enter, later, or never, and why. Optional `over(job, tokens_out, now)`: see Router."""

    def admit(self, job: Job, view: View, now: float) -> Verdict:
        """Called once for each job at the gateway, and again after `retry_s` if it was told to come later."""
        ...


class ModelRouter(Protocol):
    """Which pool (model and version) serves this job."""

    def choose(self, job: Job, pools: Mapping[str, View], now: float) -> str:
        """A key of `pools`, which holds those that can serve the job's kind (and model, if it names one)."""
        ...


class FaultPolicy(Protocol):
    """What happens to a job whose server died."""

    def lost(self, job: Job, attempt: int, now: float) -> Verdict:
        """admit: route it again now; retry_s: later; else it fails with `reason`. `attempt` counts from 1."""
        ...


class Fleet(Protocol):
    """What a Placement may know: the replicas that share devices, and what is free there."""

    @property
    def sites(self) -> Sequence[Site]:
        """Every replica of a model that is placed, in order of its server."""
        ...

    def free(self, device: str) -> float:
        """Bytes of a device that no model holds or was promised; what drains is free to be promised already."""
        ...


class Placement(Protocol):
    """Which model lives where. Asked when a job finds no replica of its model, whenever a load or an unload is over or
    a replica runs out of jobs while some job waits for a model, and when it asked for that.

    Optional `first(fleet)`: servers whose models are there when the run begins (default none). Optional
    `refuse(model, fleet, now)`: asked once for a job that would have to wait for this model; a sentence rejects it.
    Optional `wake(fleet, now)`: when to be asked again at the latest (absolute seconds), asked for after every `place`.
    """

    def place(self, fleet: Fleet, wanted: Mapping[str, Job], now: float) -> Sequence[tuple[str, int]]:
        """("load" | "unload", server), in order. `wanted` has the first job that waits for each model, by its name, who
        waits longest first. A model is loaded once its room is there: whatever is to make room (what is idle goes at
        once, what is not when its jobs are done) stands before it in the answer, or in an earlier one."""
        ...


class Scaler(Protocol):
    """How many replicas a pool should have. Asked at every tick of its period."""

    def replicas(self, view: View, now: float) -> int: ...


class Guard(Protocol):
    """What inference-time policy does to a stream."""

    def before(self, job: Job, now: float) -> Verdict:
        """Before the model runs."""
        ...

    def after(self, job: Job, tokens: int, now: float) -> Verdict:
        """After every `tokens` more output tokens, and at the end."""
        ...


class Predictor(Protocol):
    """How many output tokens a job will emit. A part of a queue, which has it in the attribute `predictor`.

    Optional `reveal(truth)`: it knows the true lengths, which is an explicit, named experiment. Whoever builds a run
    calls it with the script's `output_tokens`, and the run says so among its warnings.
    """

    def predict(self, job: Job) -> float:
        """Output tokens of the whole job, those it has emitted included."""
        ...

    def learn(self, job: Job, tokens_out: int) -> None:
        """The job is over with so many output tokens."""
        ...


class Script(Protocol):
    """What will happen, known to executors only: true output lengths, and the content of prompts."""

    def output_tokens(self, job: Job) -> int:
        """Tokens the job emits before it stops by itself, at least 1."""
        ...

    def prompt(self, job: Job, vocabulary: int) -> list[int]:
        """The token ids of the prompt (`job.prompt` many); equal prefix ids give equal tokens."""
        ...


class Workload(Protocol):
    """Requests in order of arrival, read lazily."""

    name: str
    hash_block: int

    def __iter__(self) -> Any: ...


class Executor(Protocol):
    """Runs the plans of one server: a cost model, recorded durations, or torch.

    `detailed`: plans must carry `rows` (which sequences, where their KV lies). Optional `ranks = False`: it does not
    need `plan.longest`. An executor may always do fewer passes than `plan.repeat`: a permission, not an order.
    """

    detailed: bool

    def start(self, plan: Plan, now: float) -> float:
        """Begin; returns when it will end (absolute seconds)."""
        ...

    def cut(self, plan: Plan, now: float, more: int = 0) -> float | None:
        """End after the pass in flight and `more` after it; the new end, or None if nothing changes."""
        ...

    def progress(self, plan: Plan, now: float) -> int:
        """Passes of the plan in flight that are completed at `now`, those that end at that very moment included."""
        ...

    def finish(self, plan: Plan, now: float) -> Ended: ...


class CostModel(Protocol):
    """How long a plan takes, in closed form: context enters linearly, so k equal passes sum exactly."""

    def affine(self, plan: Plan) -> Affine: ...  # and, where its class also has it, `line`: the same as a bare tuple

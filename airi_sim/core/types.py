"""Values that cross floors: what a user sends, what a server decides, what an executor answers.

Times are seconds from the start of the run, sizes are tokens or bytes. Values made per plan are NamedTuples or plain
classes because a frozen dataclass costs three times as much to build (docs/design.md, decision 4).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

FOREVER = (1 << 30) - 1
"""More passes, or tokens, than anything has. The largest number that CPython compares without a call."""
JOBS_PER_REQUEST = 1000


class Horizon(NamedTuple):
    """My answer cannot change within `passes` further passes, nor at a pass boundary at or before `until` (seconds)."""

    passes: int = 1
    until: float = inf


class Verdict(NamedTuple):
    """What Admission says: in now (`admit`), asked again after `retry_s` seconds, or never; and why."""

    admit: bool
    retry_s: float | None = None
    reason: str = ""


@dataclass(slots=True)
class Request:
    """What a user sends. Its true output length is not here (law 2): only the script of the run knows it.

    `tokens` prompt tokens, `budget` most output tokens the user asks for (0: up to the model's limit), `prefix` one
    id per `hash_block` prompt tokens (equal ids, equal content so far), `deadline` absolute seconds.
    """

    id: int
    arrival: float
    tokens: int
    budget: int = 0
    tenant: str = "default"
    session: str = ""
    model: str = ""
    program: str = "chat"
    priority: int = 0
    deadline: float = inf
    slo: str = ""
    prefix: tuple[int, ...] = ()


class Item(NamedTuple):
    """One row of a workload: the request, and the true output tokens that only scripts and executors see."""

    request: Request
    output_tokens: int


class Call(NamedTuple):
    """What a program yields: one call of one model or service.

    `tokens` is what goes in; `inputs` names earlier jobs whose results go in too (their content, in the measured
    world); `budget` is the most output tokens (0: up to the model's limit).
    """

    kind: str = "generate"
    tokens: int = 1
    budget: int = 0
    model: str = ""
    prefix: tuple[int, ...] = ()
    inputs: tuple[int, ...] = ()
    items: int = 1


class Reply(NamedTuple):
    """What a program gets back for a call."""

    job: int
    status: str
    tokens_out: int = 0


Program = Generator["Call | list[Call]", Any, None]
"""What a program function makes of a request; where one call is all, it may return that call instead."""


class Job:
    """One call of one model or service on behalf of a request, as policies see it.

    `id` is `request * 1000 + index of the call`, so it is the same in every world. `tokens` is what must be
    processed before the next output token: the prompt, and after a preemption by recompute also what was generated.
    `budget` is the most output tokens it may emit. How many it will emit nobody here knows.
    """

    __slots__ = (
        "arrived", "budget", "deadline", "id", "inputs", "items", "kind", "model", "preemptions", "prefix",
        "priority", "prompt", "request", "session", "tenant", "tokens",
    )  # fmt: skip

    def __init__(self, request: Request, call: Call, index: int, arrived: float) -> None:
        self.kind, tokens, budget, model, self.prefix, self.inputs, self.items = call
        self.request = number = request.id
        self.id = number * JOBS_PER_REQUEST + index
        self.tenant = request.tenant
        self.session = request.session
        self.priority = request.priority
        self.deadline = request.deadline
        self.model = model or request.model
        self.arrived = arrived
        self.tokens = self.prompt = tokens
        self.budget = budget or request.budget or FOREVER
        self.preemptions = 0

    def __lt__(self, other: Job) -> bool:
        return self.id < other.id

    def __repr__(self) -> str:
        return f"Job({self.id}, {self.kind}, tokens={self.tokens}, tenant={self.tenant!r})"


class Site(NamedTuple):
    """One replica as the place of its model, as a Placement sees it.

    `size` bytes of weights and KV; `state` cold, loading, up, draining (it finishes its jobs first), leaving or down;
    `jobs` it has, `used` when it was last sent one, `idle` when it last ran out of them (-inf: never).
    """

    server: int
    model: str
    device: str
    size: float
    state: str
    jobs: int
    used: float
    idle: float


class Row(NamedTuple):
    """One sequence of one pass in full, for an executor that really runs it: process `tokens` tokens of `job` from
    position `start`; `table` holds the KV blocks of the job in order (a live view: copy what you keep)."""

    job: Job
    start: int
    tokens: int
    table: list[int]


class Copy(NamedTuple):
    """`blocks` KV blocks of `job` copied from `source` to `target`: ids of blocks of the device (from 1) or of the host
    (from 0), in order; both empty where nothing is really stored."""

    job: Job | None
    blocks: int
    source: Sequence[int] = ()
    target: Sequence[int] = ()


class Copies(NamedTuple):
    """What is copied before a pass: `out` to the host, `inside` the device from block to block, `back` from the host.
    Everything that is read on the device holds what it held before the plan; `back` reads what `out` has written."""

    out: Sequence[Copy] = ()
    inside: Sequence[Copy] = ()
    back: Sequence[Copy] = ()


class Plan:
    """A decision of a server to run. The driver decides how long it takes.

    kind      pass (compute), move (bytes over a link), load (weights) or unload
    slices    (job, tokens): prompt chunks of a TokenServer, whole jobs elsewhere
    ends      jobs whose prompt completes with this plan
    joins     jobs that start decoding with its first pass without a prompt (resumed, handed over)
    sequences decoding jobs that take part: all of the lane, or 0
    context   sum of their contexts before the first pass, `longest` the longest of them, `shared` tokens in it that
              another sequence has counted already (they lie in the same blocks)
    prefill_* new prompt tokens, sum of c*(2d+c) over chunks of c tokens after d, sum of d+c
    repeat    at most so many equal passes, and none may start after `until`
    lane      which lockstep group it belongs to (0 unless several plans are in flight)
    rows      filled only for executors that ask for it (`Executor.detailed`)
    live      in flight; `end` when the driver expects it to be over (a cut moves it)

    charged   passes whose service the queue has booked already

    copies    KV blocks that are copied before its first pass; None but for a `CopyingPlan`

    One plan is made per segment, so this is a plain class with slots.
    """

    copies: Copies | None = None

    __slots__ = (
        "charged", "context", "end", "ends", "joins", "kind", "lane", "live", "longest", "prefill_attention",
        "prefill_context", "prefill_tokens", "repeat", "reserved", "rows", "sequences", "server", "shared", "slices",
        "start", "until",
    )  # fmt: skip

    def __init__(
        self,
        server: int,
        start: float,
        slices: Sequence[tuple[Any, int]] = (),
        ends: Sequence[Any] = (),
        joins: Sequence[Any] = (),
        lane: int = 0,
        sequences: int = 0,
        context: int = 0,
        longest: int = 0,
        reserved: int = 0,
        prefill_tokens: int = 0,
        prefill_attention: int = 0,
        prefill_context: int = 0,
        repeat: int = 1,
        until: float = inf,
        kind: str = "pass",
        shared: int = 0,
    ) -> None:
        self.server = server
        self.start = start
        self.slices = slices
        self.ends = ends
        self.joins = joins
        self.lane = lane
        self.sequences = sequences
        self.context = context
        self.longest = longest
        self.reserved = reserved
        self.prefill_tokens = prefill_tokens
        self.prefill_attention = prefill_attention
        self.prefill_context = prefill_context
        self.repeat = repeat
        self.until = until
        self.kind = kind
        self.shared = shared
        self.end = inf
        self.charged = 0
        self.live = True
        self.rows: list[Row] | None = None


class CopyingPlan(Plan):
    """A plan of one pass before which KV blocks are copied. A class of its own, so that plans without pay nothing."""

    __slots__ = ("copies",)

    copies: Copies


def copying(plan: Plan, copies: Copies) -> CopyingPlan:
    """`plan` for one pass, with `copies` before it."""
    made = CopyingPlan.__new__(CopyingPlan)
    for name in Plan.__slots__:
        setattr(made, name, getattr(plan, name))
    made.copies, made.repeat = copies, 1
    return made


class Outcome(NamedTuple):
    """What an executor says when a plan is over: passes done, jobs that stopped, seconds of the first pass, tokens per
    job where they differ from one per pass (speculation), or why it failed."""

    passes: int
    stopped: list[Any]
    first_s: float
    advanced: dict[Any, int] | None = None
    failed: str = ""


Ended = tuple[int, list[Any], float, dict[Any, int] | None, str]
"""What an Outcome holds, as the bare tuple, which CPython makes and takes apart faster."""


class Affine(NamedTuple):
    """Pass i (from 0) of a plan takes `first + i*step` seconds, for at least `passes` passes."""

    first: float
    step: float = 0.0
    passes: int = FOREVER

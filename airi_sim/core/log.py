"""The one log: rows in, columns out. Written by the runtime only; simulated and measured runs have the same tables."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from itertools import count
from typing import Any

TABLES: dict[str, tuple[str, ...]] = {
    "requests": (
        "request", "tenant", "session", "program", "model", "arrival_s", "first_token_s", "finish_s", "prompt_tokens",
        "output_tokens", "cached_tokens", "status", "reason",
    ),
    "jobs": (
        "job", "request", "kind", "model", "pool", "server", "submitted_s", "started_s", "first_s", "finished_s",
        "tokens_in", "tokens_out", "cached_tokens", "preemptions", "status",
    ),
    "plans": (
        "server", "kind", "start_s", "end_s", "passes", "decodes", "prefill_tokens", "context_tokens", "kv_blocks",
        "waiting", "first_s", "lane",
    ),
    "decisions": ("order", "where", "policy", "job", "choice", "pass_index"),
    "spans": ("server", "lane", "job", "first_pass", "last_pass", "joined_s", "emitted"),
}  # fmt: skip
"""Columns by table. `first_s` of a plan is the duration of its first pass. A span is one stay of a job among the
decoding ones: it joined at `joined_s` (with a token if `emitted`) after `first_pass` decode passes of the lane and
got a token in all of them up to `last_pass`; a job that got several in a pass has further spans over it. Token times
are expanded from them when asked."""

Sink = Callable[[str, list[tuple[Any, ...]]], None]


class Log:
    """Rows as tuples, one list a table. With a `sink`, lists of `chunk` rows are handed over and emptied (the runtime
    looks when a request ends), so memory follows what is in flight and not the length of the run."""

    def __init__(self, sink: Sink | None = None, chunk: int = 65536) -> None:
        self.sink = sink
        self.chunk = chunk
        self.rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in TABLES}
        self.requests = self.rows["requests"]
        self.jobs = self.rows["jobs"]
        self.plans = self.rows["plans"]
        self.decisions = self.rows["decisions"]
        self.spans = self.rows["spans"]
        self.order = count()
        self.hashed = 0
        self._places: dict[str, Any] = {}

    def decide(self, where: str, policy: str, job: int, choice: str, index: int) -> None:
        """A choice of a policy: at the gateway or on a server, before its pass number `index`."""
        self.decisions.append((next(self.order), where, policy, job, choice, index))

    def flush(self) -> None:
        """Hash what is new and hand everything to the sink, if there is one."""
        self._hash()
        if self.sink is None:
            return
        for name, rows in self.rows.items():
            if rows:
                self.sink(name, rows[:])
                rows.clear()
        self.hashed = 0

    def decisions_hash(self) -> str:
        """sha256 over, per place in order of name, the choices with their pass index; no times, no repeats."""
        self._hash()
        whole = sha256()
        for place in sorted(self._places):
            whole.update(f"{place}:{self._places[place].hexdigest()}\n".encode())
        return whole.hexdigest()

    def _hash(self) -> None:
        texts: dict[str, list[str]] = {}
        for _, where, _, job, choice, index in self.decisions[self.hashed :]:
            texts.setdefault(where, []).append(f"{index} {job} {choice}\n")
        self.hashed = len(self.decisions)
        for where, lines in texts.items():
            self._places.setdefault(where, sha256()).update("".join(lines).encode())

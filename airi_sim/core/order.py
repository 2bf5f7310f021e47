"""Which of several things at the same instant happens first, in every driver."""

from __future__ import annotations

COMPLETION = 10  # what has ended frees seats and memory before anybody asks for them
TIMER = 20  # then time-outs and retries
ARRIVAL = 30  # new requests come last and see the state after everything that is over

"""What should be gone when a run is over: jobs, memory, references, moves. Asked once, by whoever ran it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airi_sim.runtime.swap import CopyingServer
from airi_sim.runtime.token_server import TokenServer

HELD = ("jobs", "running", "flights", "parted")
OF_TOKENS = (
    "incoming", "moving", "leaving", "adopted", "paused", "inbox", "coming", "queued_tokens", "inflight_tokens",
)  # fmt: skip


def leaks(runtime: Any) -> list[str]:
    """What the servers of a run that is over still hold, a phrase each that names it; none if all is well.

    Blocks of the prefix cache that nobody refers to are no leak: they are free, with content that may be used again.
    """
    found = [f"the runtime has {len(held)} {name}" for name, held in _under_way(runtime) if held]
    for server in runtime.servers:
        found += [f"{server.name} has {text}" for text in _of_server(server)]
    return found


def _under_way(runtime: Any) -> Iterator[tuple[str, Any]]:
    yield "requests under way", runtime.flows
    yield "requests that wait outside", runtime.outside
    yield "moves under way", runtime.handovers
    yield "lines of moves that wait for room", runtime.lines


def _of_server(server: Any) -> Iterator[str]:
    yield from _left(server, HELD)
    if isinstance(server, TokenServer):
        yield from _left(server, OF_TOKENS)
        yield from _memory(server)
        members = sum([lane.count for lane in server.lanes]) + sum([len(partial) for partial in server.partials])
        if members:
            yield f"{members} jobs in its passes"
    if isinstance(server, CopyingServer) and server.host.free != server.host.total:
        yield f"{server.host.total - server.host.free} KV blocks on the host of jobs {list(server.host.kept)[:5]}"


def _left(server: Any, names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        held = getattr(server, name)
        if held:
            yield f"{held if isinstance(held, int) else len(held)} {name}"


def _memory(server: TokenServer) -> Iterator[str]:
    """KV blocks that are not free, and where the counts, the references and the block ids disagree."""
    cache, pages, idle = server.cache, server.pages, 0
    if server.free != server.total:
        yield f"{server.total - server.free} KV blocks that nobody gave back"
    if cache is not None:
        idle = len(cache.idle) * cache.unit
        referred = sum([1 for count in cache.references.values() if count])
        if referred or cache.shared:
            yield f"{referred} cached prefixes that are still referred to"
        if server.blank != server.total - idle:
            yield f"{server.total - idle - server.blank} KV blocks that are neither blank nor cached"
    if pages is not None and len(pages.spare) + idle != server.total:
        yield f"{server.total - idle - len(pages.spare)} block ids that are neither spare nor cached"

"""The one place where true output lengths reach a policy: predictors that know them, because somebody asked for it.

`policy.queue.predictor=perfect` is an experiment no system can run (law 2). So it is done here, by name, and the run
says so among its warnings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airi_sim.core.protocols import Script


def reveal_truth(runtime: Any, script: Script) -> list[str]:
    """Tell the true lengths to every predictor of a policy that has a method `reveal`; returns the warnings."""
    routers = [pool.router for pool in runtime.pools.values()]
    batchers = [server.batcher for server in runtime.servers if hasattr(server, "batcher")]
    told = [_tell(policy, script) for policy in (runtime.admission, *routers, *batchers)]
    for server in runtime.servers:
        if _knowing(server.queue) is not None:
            make: Callable[[], Any] = server.make_queue
            server.make_queue = _telling(make, script)
            server.queue = server.make_queue()
            told.append(_name(server.queue))
    return [f"{name}: true output lengths are known to it, as in no real system." for name in sorted({*told} - {""})]


def _knowing(policy: Any) -> Any:
    return getattr(getattr(policy, "predictor", None), "reveal", None)


def _tell(policy: Any, script: Script) -> str:
    """Its name, if there was something to tell."""
    reveal = _knowing(policy)
    if reveal is None:
        return ""
    reveal(script.output_tokens)
    return _name(policy)


def _telling(make: Callable[[], Any], script: Script) -> Callable[[], Any]:
    """Queues are made again when a server died: so each is told when it is made."""

    def made() -> Any:
        queue = make()
        _tell(queue, script)
        return queue

    return made


def _name(policy: Any) -> str:
    return f"policy {type(policy).__name__} with predictor {type(policy.predictor).__name__}"

"""Which models are in memory. A placement sees sizes, states, last uses and who waits, never the queues of replicas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf

from airi_sim.core.protocols import Fleet
from airi_sim.core.types import Job, Site

Actions = list[tuple[str, int]]
THERE = ("up", "loading")


def that_fit(fleet: Fleet) -> list[int]:
    """Servers in order, as long as there is room on their devices; those that find none are passed over."""
    taken: dict[str, float] = {}
    found = []
    for site in fleet.sites:
        held = taken.get(site.device, 0.0)
        if held + site.size <= fleet.free(site.device):
            taken[site.device] = held + site.size
            found.append(site.server)
    return found


def absent(fleet: Fleet, wanted: Mapping[str, Job]) -> Iterator[list[Site]]:
    """For each wanted model that is neither there nor on its way: the replicas that could load it."""
    there = {site.model for site in fleet.sites if site.state in THERE}
    for model in wanted:
        if model not in there:
            yield [site for site in fleet.sites if site.model == model and site.state == "cold"]


class Static:
    """What fits is there from the start, in order of the pools, and stays; jobs of other models are refused."""

    def first(self, fleet: Fleet) -> list[int]:
        return that_fit(fleet)

    def refuse(self, model: str, fleet: Fleet, now: float) -> str:
        return f"model '{model}' found no room in memory, and placement static keeps what is there"

    def place(self, fleet: Fleet, wanted: Mapping[str, Job], now: float) -> Actions:
        return []


class LruSwap:
    """A model that is asked for takes the room of the least recently used one. Idle models go first; where none is
    idle, one that serves is drained. `warm`: what fits is there from the start, in order of the pools.

    Swapping whole models by recency is what Ollama and Clockwork (Gujarati et al., OSDI 2020) do.
    """

    def __init__(self, warm: bool = False) -> None:
        self.warm = warm

    def first(self, fleet: Fleet) -> list[int]:
        return that_fit(fleet) if self.warm else []

    def place(self, fleet: Fleet, wanted: Mapping[str, Job], now: float) -> Actions:
        actions: Actions = []
        gone: set[int] = set()
        promised: dict[str, float] = {}
        for sites in absent(fleet, wanted):
            for site in sites:
                room = fleet.free(site.device) - promised.get(site.device, 0.0)
                victims = _make_room(fleet, site, room, gone)
                if victims is None:
                    continue
                actions += [("unload", victim.server) for victim in victims] + [("load", site.server)]
                gone |= {victim.server for victim in victims}
                freed = sum([victim.size for victim in victims])
                promised[site.device] = promised.get(site.device, 0.0) + site.size - freed
                break
        return actions


def _make_room(fleet: Fleet, site: Site, room: float, gone: set[int]) -> list[Site] | None:
    """Who makes way for a model: the least recently used ones of its device, those without a job before the others;
    None if not even all of them would do. Who was loaded for a job has it when this is asked, so it can serve it."""
    able = [one for one in fleet.sites if one.device == site.device and one.state == "up" and one.server not in gone]
    victims: list[Site] = []
    for one in sorted(able, key=lambda one: (one.jobs > 0, one.used, one.server)):
        if room >= site.size:
            break
        victims.append(one)
        room += one.size
    return victims if room >= site.size else None


class KeepAlive(LruSwap):
    """`lru_swap`, and a model that nobody used for `ttl_s` seconds goes although nobody needs its room, as serverless
    platforms do (Shahrad et al., USENIX ATC 2020)."""

    def __init__(self, ttl_s: float = 60.0, warm: bool = False) -> None:
        super().__init__(warm)
        self.ttl_s = ttl_s

    def place(self, fleet: Fleet, wanted: Mapping[str, Job], now: float) -> Actions:
        stale = [site.server for site in fleet.sites if _idle(site) and site.idle + self.ttl_s <= now]
        swaps = super().place(fleet, wanted, now)
        named = {server for _, server in swaps}
        return [("unload", server) for server in stale if server not in named] + swaps

    def wake(self, fleet: Fleet, now: float) -> float:
        """When the first idle model has been there for too long."""
        return min([site.idle + self.ttl_s for site in fleet.sites if _idle(site)], default=inf)


def _idle(site: Site) -> bool:
    return site.state == "up" and not site.jobs

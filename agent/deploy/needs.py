"""Order between apps: one that needs others starts when they serve, and ends before they do.

It is an order and no more. An app whose need does not serve does not start anew, and is tried again later;
what serves already goes on whatever happens to others, and what crashes is started again at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from agent.deploy.jobs.jobs import WORKING
from agent.deploy.lane import Lane
from agent.deploy.leaving import longest_stop

log = logging.getLogger(__name__)

PATIENCE = 15.0  # seconds for one that should serve, and about which nothing is done, to do so by itself
LIMIT = 600.0  # seconds in all
BUSY = "is being updated"
NOBODY = "does not run"  # and nobody starts it
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.25  # seconds between two looks


class Needs:
    """Knows whether apps are there for those who need them. `lanes` gives all that are here."""

    def __init__(self, lanes: Callable[[], Mapping[str, Lane]]) -> None:
        self._lanes = lanes

    async def ready(self, needs: Sequence[str]) -> str:
        """Wait until all of these serve; "" when they do, else why one does not, after some time."""
        loop = asyncio.get_running_loop()
        began = quiet = loop.time()
        pause = FIRST_PAUSE
        while missing := {name: why for name in needs if (why := self._missing(name))}:
            now = loop.time()
            if any(why == BUSY for why in missing.values()):
                quiet = now
            hopeless = any(why == NOBODY for why in missing.values())
            if now - quiet > (0.0 if hopeless else PATIENCE) or now - began > LIMIT:
                return "; ".join(f"{name} {why}" for name, why in missing.items())
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        return ""

    def _missing(self, name: str) -> str:
        """Why an app is not there; one that this host does not have is not waited for."""
        lane = self._lanes().get(name)
        if lane is None or lane.removed:
            return ""
        spec = lane.app.wanted or (lane.app.current.spec if lane.app.current is not None else None)
        if lane.busy:
            return BUSY
        if spec is None:
            return ""
        if spec.job is not None:
            return BUSY if (why := lane.app.jobs.owes()) == WORKING else why
        if spec.run is None:
            return "" if lane.app.placed else "is not in its place"
        if lane.app.serving.nobody or lane.app.serving.restarting:
            return "is being started again" if lane.app.serving.restarting else NOBODY
        return "is not healthy" if lane.app.unhealthy is not None else ""


def in_order(lanes: Mapping[str, Lane]) -> list[list[Lane]]:
    """The lanes in the order in which they end: who needs others before them. All at once in a cycle."""
    before: dict[str, Collection[str]] = {name: _needing(name, lanes.values()) for name in lanes}
    order = TopologicalSorter(before)
    try:
        order.prepare()
    except CycleError:  # of specifications from different commits
        return [list(lanes.values())]
    found = []
    while order.is_active():
        names = order.get_ready()
        found.append([lanes[name] for name in names])
        order.done(*names)
    return found


def _needing(name: str, lanes: Iterable[Lane]) -> set[str]:
    """Apps here that need this one."""
    return {
        lane.name for lane in lanes if lane.app.current is not None and name in lane.app.current.spec.needs
    }


def longest(order: Iterable[Sequence[Lane]]) -> float:
    """Seconds that ending them may take."""
    return sum(max((longest_stop(lane.app) for lane in lanes), default=0.0) for lanes in order)


async def end(order: Iterable[Sequence[Lane]]) -> None:
    """Stop all apps, one group after the other."""
    for lanes in order:
        async with asyncio.TaskGroup() as group:
            for lane in lanes:
                group.create_task(lane.shut_down(), name=f"stop {lane.name}")

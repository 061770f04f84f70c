"""The instances of what serves: each is probed, those that are well get clients, missing ones are started.

    missing --started, healthy--> well --probes fail--> ill (gets no new clients while another is well)
       ^                           |  ^                   |
       +---------ended by itself---+  +-----well again----+

An app of one instance is the same with nobody beside it: whether it is well changes nothing for its
clients, and when it ends, `Serving` holds them and starts it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from agent.deploy.child import Child
from agent.deploy.failures import as_info
from agent.deploy.processes import Processes
from agent.deploy.roster import Roster
from agent.domain.errors import FailureInfo
from agent.domain.events import AppFailed, Bus
from agent.kit.tasks import Owned
from agent.traffic.state import CLOSED


class Watcher(Protocol):
    """Who is told of what serves."""

    def health(self, child: Child, failure: FailureInfo | None) -> None:
        """The verdict over a crew changed: its lead, and why one is ill, or None when all are well again."""

    def changed(self) -> None:
        """Its clients are shared out in another way."""


class Instances:
    """Looks after the crew of one child, the one that `watch` was called with last.

    Args:
        roster: knows who is there.
        processes: probes them.
        bus: hears what fails.
        watcher: told of the crew that is watched.
        pause: how long to wait before one that ended is started again.
        whole: called when all are there again.
        tasks: own the watching.
    """

    def __init__(
        self,
        roster: Roster,
        processes: Processes,
        bus: Bus,
        watcher: Watcher,
        pause: Callable[[Child], Awaitable[float]],
        whole: Callable[[], None],
        tasks: Owned,
    ) -> None:
        self._roster = roster
        self._processes = processes
        self._bus = bus
        self._watcher = watcher
        self._pause = pause
        self._whole = whole
        self._tasks = tasks
        self._lead: Child | None = None
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._ill: dict[str, FailureInfo] = {}
        self._filling: asyncio.Task[None] | None = None

    # -- who is watched ----------------------------------------------------------------------------

    def watch(self, lead: Child) -> None:
        """Probe a crew from now on, and have as many of it as its specification says."""
        self.stop()
        self._lead = lead
        for child in self._roster.serving_crew(lead):
            self._watch(child)
        self._fill()

    def follow(self, lead: Child) -> None:
        """The same crew has another lead."""
        self._lead = lead

    def stop(self) -> None:
        """Probe and start nobody any more: the crew is about to be stopped on purpose."""
        self.pause()
        for watch in self._watches.values():
            watch.cancel()
        self._watches.clear()
        self._ill.clear()
        self._lead = None

    def pause(self) -> None:
        """Start nobody until `watch` is called again."""
        filling, self._filling = self._filling, None
        if filling is not None:
            filling.cancel()

    def _watch(self, child: Child) -> None:
        if child.id not in self._watches:
            self._watches[child.id] = self._tasks.start(self._probe(child), name=f"watch {child.id}")

    async def _probe(self, child: Child) -> None:
        async for failure in self._processes.watch(child):
            if failure is None:
                self._ill.pop(child.id, None)
            else:
                self._ill[child.id] = failure
            lead = self._lead
            if lead is not None:
                self._watcher.health(lead, failure or self.illness)
                await self.staff(lead)

    # -- who gets clients --------------------------------------------------------------------------

    async def join(self, child: Child, lead: Child) -> None:
        """A child that is healthy gets its share of the clients of its crew from now on."""
        child.joined = True
        await self.staff(lead)
        if lead is self._lead:
            self._watch(child)

    async def staff(self, lead: Child, *, without: Child | None = None) -> None:
        """The clients of a crew go to those of it who are well; if nobody is, to all who are there."""
        crew = [child for child in self._roster.serving_crew(lead) if child is not without]
        well = [child.number for child in crew if child.id not in self._ill]
        numbers = well or [child.number for child in crew]
        if lead.gate is not None and lead.gate.state != CLOSED and numbers:
            await lead.gate.staff(lead.side, numbers)
        self._watcher.changed()

    @property
    def illness(self) -> FailureInfo | None:
        """What ails one of the crew that is watched; None when all of it is well."""
        return next(iter(self._ill.values()), None)

    def unwell(self, child: Child) -> bool:
        """Whether its probes fail, and others have its clients."""
        return child.id in self._ill

    # -- who is missing ----------------------------------------------------------------------------

    async def replace(self, dead: Child, bury: Callable[[Child], Awaitable[None]]) -> None:
        """One of several ended by itself: the others have its clients, and another is started."""
        self._forget(dead)
        if dead.gate is not None and dead.gate.state != CLOSED:
            await dead.gate.take_over(dead.side, dead.number)
        await bury(dead)
        if self._lead is not None:
            self._fill(crashed=True)

    def _forget(self, child: Child) -> None:
        self._ill.pop(child.id, None)
        watch = self._watches.pop(child.id, None)
        if watch is not None:
            watch.cancel()

    def _fill(self, *, crashed: bool = False) -> None:
        if self._filling is None or self._filling.done():
            self._filling = self._tasks.start(self._until_complete(crashed), name="instances")

    async def _until_complete(self, failed: bool) -> None:
        """Start who is missing, one after the other, as the restart policy says."""
        while (lead := self._lead) is not None and lead.alive:
            number = next(iter(missing(self._roster, lead)), None)
            if number is None:
                self._whole()
                return
            if failed:
                await asyncio.sleep(await self._pause(lead))
            try:
                await self.start(lead, number)
                failed = False
            except Exception as error:  # whatever it is: it must not be the last try
                self._bus.publish(AppFailed(self._roster.app, as_info(error, f"instance {number}")))
                failed = True

    async def start(self, lead: Child, number: int, run: str = "") -> Child:
        """Start an instance beside others, and let it have clients once it is healthy. Raises Failure."""
        child = await self._roster.start(lead.deployment, lead.gate, lead.side, run, number=number)
        child.joined = False
        try:
            await self._processes.until_healthy(child)
            await self.join(child, lead)
        except BaseException:
            await self._roster.retire_one(child)
            raise
        return child

    async def dismiss(self, lead: Child, count: int) -> None:
        """Stop those beyond `count`, the last ones first, each when nobody waits at it. Raises Failure."""
        crew = self._roster.serving_crew(lead)
        for child in sorted(crew, key=lambda each: (each is not lead, each.number))[: count - 1 : -1]:
            await self.dismiss_one(lead, child)

    async def dismiss_one(self, lead: Child, child: Child) -> None:
        """Stop one of several when nobody waits at it. Raises Failure."""
        await self.staff(lead, without=child)
        if child.gate is not None:
            await child.gate.drained(child.side, child.deployment.spec.drain.deadline, child.number)
        self._forget(child)
        await self._roster.retire_one(child)


def missing(roster: Roster, lead: Child, count: int | None = None) -> list[int]:
    """The numbers to start so that a crew has as many as its specification, or `count`, says."""
    run = lead.deployment.spec.run
    wanted = count if count is not None else run.instances if run is not None else 1
    there = {child.number for child in roster.serving_crew(lead)}
    free = [number for number in range(wanted + len(there)) if number not in there]
    return free[: max(0, wanted - len(there))]

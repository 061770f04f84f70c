"""Who is there of an app: every child that is looked after, from its start to its end.

Children that live together on one side of the gate are *instances* of one version: a crew. They have
numbers, and each has a slot of its own. Who comes to a side after the last of a crew has left it belongs to
another crew.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from pathlib import Path

from agent.deploy.child import Child
from agent.deploy.deployments import Deployment
from agent.deploy.processes import Processes
from agent.domain.events import Bus, ChildExited
from agent.kit.tasks import Owned
from agent.traffic.state import Gate


class Roster(ABC):
    """Starts, looks after and ends the children of one app."""

    def __init__(self, app: str, processes: Processes, bus: Bus) -> None:
        self.app = app
        self._processes = processes
        self._bus = bus
        self._tasks = Owned(f"{app}/serving")
        self._kept: list[Child] = []  # everyone who is looked after
        self._leaving: dict[str, asyncio.Task[None]] = {}

    async def aclose(self) -> None:
        """Stop looking after the children; they themselves go on."""
        await self._tasks.aclose()

    def crew(self, child: Child) -> list[Child]:
        """A child and the others of its side, by number; ended ones that are not buried yet, too."""
        beside = [each for each in self._kept if each.crew == child.crew]
        return sorted({*beside, child}, key=lambda each: each.number)

    def serving_crew(self, child: Child) -> list[Child]:
        """Those of a crew that live, and have got, or are to get, clients."""
        return [each for each in self.crew(child) if each.joined and each.alive and not each.expected]

    async def start(
        self,
        deployment: Deployment,
        gate: Gate | None,
        side: int,
        run: str = "",
        instance: Path | None = None,
        number: int = 0,
    ) -> Child:
        """Start a child that does not serve yet. Raises Failure, OSError."""
        child = await self._processes.start(deployment, gate, side, run, instance, number)
        self.look_after(child)
        return child

    def look_after(self, child: Child) -> None:
        """Learn of the child's end when it comes."""
        beside = (each for each in self._kept if each.side == child.side and each.gate is child.gate)
        child.crew = next((each.crew for each in beside), child.id)
        self._kept.append(child)
        self._tasks.start(self._until_end(child), name=f"wait {child.id}")

    async def _until_end(self, child: Child) -> None:
        await self._processes.until_end(child, self._gone)
        lines = () if child.expected else child.log
        self._bus.publish(ChildExited(self.app, child.id, child.code, child.signal, child.expected, lines))
        if not child.expected:
            await self._ended(child)

    @abstractmethod
    async def _ended(self, child: Child) -> None:
        """A child ended by itself."""

    @abstractmethod
    def _goes(self, child: Child) -> None:
        """A child is about to be ended: it neither serves nor stands by any more."""

    @abstractmethod
    def _gone(self) -> None:
        """Somebody is not there any more, or says something else of itself."""

    async def retire(self, child: Child, *, take_over: bool = True) -> None:
        """Stop a child that serves no more, and its whole crew, the last one first.

        One after the other: see `SlotGroup.mended_order`. Raises Failure.
        """
        crew = [each for each in reversed(self.crew(child)) if each is not child]
        for each in crew:
            each.expected = True
        self._goes(child)
        for each in (*crew, child):
            await self.retire_one(each, take_over=take_over)

    async def retire_one(self, child: Child, *, take_over: bool = True) -> None:
        """Stop a child that serves no more; what still waits at its slot is taken over by the others.

        Asked for again, or cancelled, it goes on to the same end; and one that has left is not looked for,
        because its slot may be another one's by now. Nor is anyone stopped once `aclose` has begun: who is
        there then is the next agent's, or the keeper's to end. Raises Failure.
        """
        if child.id not in self._leaving:
            if child not in self._kept or self._tasks.closing:
                return
            child.expected = True
            self._goes(child)
            ending = self._end(child, take_over)
            self._leaving[child.id] = self._tasks.start(ending, name=f"retire {child.id}")
        await asyncio.shield(self._leaving[child.id])

    async def _end(self, child: Child, take_over: bool) -> None:
        try:
            if take_over:
                await self._processes.connections_gone(child)
            await self._processes.stop(child)
        finally:
            self._drop(child)
            try:
                if take_over and child.gate is not None:
                    await child.gate.take_over(child.side, child.number)
            finally:
                del self._leaving[child.id]

    def _drop(self, child: Child) -> None:
        if child in self._kept:
            self._kept.remove(child)
        self._gone()

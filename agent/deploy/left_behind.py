"""Stray processes: what a program started and left behind when it ended, found by looking now and then.

A program ends with its process group; who has left that group lives on, as a child of the keeper, and may
hold a lock, a port or memory that the next version wants. So whoever carries an app's name and belongs to
no child that lives is told, and ended as `drift` says:

    seen --seen again in the next look--> stray --repair--> ended, at most 5 times in 10 minutes
                                            +--report, or ended too often--> told until it is gone

What a living program has sent into the background is its own affair, and so is what a command (a hook, a
migration) has started and left.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from typing import NoReturn

from agent.deploy.lane import Lane
from agent.deploy.reconciler import Lanes
from agent.deploy.services import AS_WANTED
from agent.domain.events import Bus, DriftFound
from agent.domain.spec import DriftSpec
from agent.process.keepers import Keeper
from agent.process.strays import Orphan, end_orphan, orphans

FIRST = 5.0  # seconds until the first look
ENDS = 5
WINDOW = 600.0  # seconds in which so many may be ended
TOLD_MAX = 4


class LeftBehind:
    """Looks for them, for all apps. `keeper_pid` is whose children they become, `box` marks ours."""

    def __init__(self, keeper: Keeper, keeper_pid: int, box: str, lanes: Lanes, bus: Bus) -> None:
        self._keeper = keeper
        self._keeper_pid = keeper_pid
        self._box = box
        self._lanes = lanes
        self._bus = bus
        self._seen: set[Orphan] = set()
        self._told: dict[str, tuple[str, ...]] = {}
        self._ended: dict[str, list[float]] = {}

    async def watch(self) -> NoReturn:
        """Look again and again, as often as the app that wants it most often."""
        pause = FIRST
        while True:
            await asyncio.sleep(pause)
            await self.look()
            pause = min((self._spec(lane).every for lane in self._live()), default=DriftSpec().every)

    def _live(self) -> list[Lane]:
        return [lane for lane in self._lanes.live().values() if self._spec(lane).action != "ignore"]

    @staticmethod
    def _spec(lane: Lane) -> DriftSpec:
        current = lane.app.current
        return current.spec.drift if current is not None else DriftSpec()

    async def look(self) -> None:
        """Look once."""
        known = {record.pid for record in self._keeper.children.values()} | {os.getpid()}
        found = await asyncio.to_thread(orphans, self._box, self._keeper_pid, known)
        strays = [orphan for orphan in found if orphan in self._seen and self._nobodys(orphan)]
        self._seen = set(found)
        for name, lane in self._lanes.live().items():
            mine = [orphan for orphan in strays if orphan.app == name]
            if mine or name in self._told:
                await self._see_to(lane, mine)

    def _nobodys(self, orphan: Orphan) -> bool:
        """Whether it belongs to no program that lives."""
        record = self._keeper.children.get(orphan.child)
        return bool(orphan.child) and (record is None or not record.running)

    async def _see_to(self, lane: Lane, strays: Sequence[Orphan]) -> None:
        """Tell, and end, as the app's specification says."""
        action, name = self._spec(lane).action, lane.name
        told = tuple(f"process {orphan.pid} ({orphan.name})" for orphan in strays)
        if not strays or action == "ignore":
            self._told.pop(name, None)
            lane.app.condition("StrayProcesses", False, AS_WANTED)
            return
        ends = action == "repair" and lane.services.paused() is None
        spent = ends and self._spent(self._ended, name)
        shown = ", ".join(told[:TOLD_MAX]) + (f" and {len(told) - TOLD_MAX} more" if told[TOLD_MAX:] else "")
        if spent:
            shown += f"; others were ended {ENDS} times in {WINDOW / 60:g} minutes"
        lane.app.condition("StrayProcesses", True, "RepairsSpent" if spent else "LeftBehind", shown)
        if (ends and not spent) or self._told.get(name) != told:
            self._bus.publish(DriftFound(name, told, ends and not spent))
        self._told[name] = told
        if ends and not spent:
            self._ended.setdefault(name, []).append(time.monotonic())
            await asyncio.gather(*(end_orphan(orphan, self._box) for orphan in strays))

    @staticmethod
    def _spent(ended: Mapping[str, list[float]], name: str) -> bool:
        now = time.monotonic()
        recent = ended.get(name, [])
        recent[:] = [at for at in recent if now - at < WINDOW]
        return len(recent) >= ENDS

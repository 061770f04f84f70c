"""What apps said: the last lines, and lines as they come."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from agent.deploy.lane import Lane
from agent.deploy.processes import Processes
from agent.deploy.reconciler import Lanes
from agent.domain.control import Line, NotPossible, UnknownApp
from agent.kit.tasks import uninterrupted
from agent.process.written import NAME, Following, last

LOOK = 0.2  # seconds between two looks at files that are followed


class Said:
    """Reads the files that the keeper's scribe writes, `apps` being the directory above them.

    Where none are kept, the keeper still has the last lines of what serves.
    """

    def __init__(self, apps: Path, lanes: Lanes, processes: Processes, *, kept: bool) -> None:
        self._apps = apps
        self._lanes = lanes
        self._processes = processes
        self._kept = kept

    async def last(self, app: str, count: int) -> Sequence[Line]:
        """The last lines of an app ("" = of all), oldest first. Raises UnknownApp."""
        of_each = [await self._last(name, path, count) for name, path in self._paths(app).items()]
        return list(heapq.merge(*of_each, key=lambda line: line.at))[-count:]

    async def _last(self, app: str, path: Path, count: int) -> list[Line]:
        found = await asyncio.to_thread(last, app, path, count) if self._kept else []
        return found or [Line(app, text) for text in await self._held(self._lanes.live().get(app), count)]

    async def _held(self, lane: Lane | None, count: int) -> list[str]:
        child = lane.app.serving.child if lane is not None else None
        return await self._processes.tail(child, count) if child is not None else []

    @asynccontextmanager
    async def following(self, app: str, count: int) -> AsyncIterator[AsyncIterator[Sequence[Line]]]:
        """The last lines of an app ("" = of all there are now), then new ones as they come, without an end.

        An empty sequence says that there were none for a while. Raises UnknownApp, NotPossible.
        """
        if not self._kept:
            raise NotPossible("no output is kept on disk to be followed; start the agent with --app-log-size")
        files: list[Following] = []
        try:
            for name, path in self._paths(app).items():
                files.append(Following(name, path))
                await uninterrupted(asyncio.to_thread(files[-1].begin, count), name="begin to follow")
            yield self._follow(files, count)
        finally:
            for file in files:
                file.close()

    @staticmethod
    async def _follow(files: Sequence[Following], count: int) -> AsyncIterator[Sequence[Line]]:
        before = heapq.merge(*(file.before for file in files), key=lambda line: line.at)
        yield list(before)[-count:]
        while True:
            of_each = [await uninterrupted(asyncio.to_thread(file.more), name="follow") for file in files]
            lines = list(heapq.merge(*of_each, key=lambda line: line.at))
            yield lines
            if not lines:
                await asyncio.sleep(LOOK)

    def _paths(self, app: str) -> Mapping[str, Path]:
        live = self._lanes.live()
        there = sorted({*live, *(path.parent.name for path in self._apps.glob(f"*/{NAME}"))})
        if app and app not in there:
            raise UnknownApp(f"no app {app!r}; there are: {', '.join(live) or 'none'}")
        return {name: self._apps / name / NAME for name in ([app] if app else there)}

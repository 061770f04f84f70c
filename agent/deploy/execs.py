"""Commands that people run in an app (`emptybox exec`), as its other commands run: user, isolation, limits.

They work in the directory and the namespaces of what serves, and see its temporary files; where nothing
serves, in their own. What they do is none of the agent's business, who began them is: it is told, and on the
disk before.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.deploy.deployments import Deployment
from agent.deploy.exec_ledger import INTERRUPTED, ExecLedger
from agent.deploy.processes import Processes
from agent.deploy.reconciler import Lanes
from agent.deploy.services import AppContext
from agent.deploy.surroundings import port_variables
from agent.domain.control import Ends, ExecEnd, NotPossible, UnknownApp
from agent.domain.errors import Failure
from agent.domain.events import Bus, ExecEnded, ExecStarted
from agent.domain.model import new_id
from agent.kit.mask import secrets

ALL = "*"
MOST = 16  # at a time


@dataclass(frozen=True, slots=True)
class _Place:
    """What is deployed, a directory for it, what the environment has beside the app's, the child there."""

    deployment: Deployment
    instance: Path
    extra: Mapping[str, str] = field(default_factory=dict)
    beside: str = ""


class ExecDesk:
    """The implementation of `agent.domain.control.ExecControl`. `allowed` are apps' names, or `*`."""

    def __init__(
        self, lanes: Lanes, processes: Processes, ledger: ExecLedger, bus: Bus, allowed: Collection[str]
    ) -> None:
        self._lanes = lanes
        self._processes = processes
        self._ledger = ledger
        self._bus = bus
        self._allowed = allowed
        self._under_way: set[asyncio.Task[Any]] = set()
        self._closing = False

    async def aclose(self) -> None:
        """End all, and begin no more: before the agent ends."""
        self._closing = True
        for task in self._under_way:
            task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def run(self, app: str, by: str, command: Sequence[str], timeout: float, ends: Ends) -> ExecEnd:
        """Run a command to its end; cancelled, it is stopped. See the protocol."""
        context = self._context(app)
        if self._closing or len(self._under_way) >= MOST:
            why = "the agent is ending" if self._closing else f"{MOST} commands of `exec` run already"
            raise NotPossible(f"{why}; try again later")
        task = asyncio.current_task()
        assert task is not None
        self._under_way.add(task)
        try:
            async with self._place(context) as place:
                return await self._run(place, by, command, timeout, ends)
        finally:
            self._under_way.discard(task)

    async def history(self, app: str = "", limit: int = 20) -> Sequence[Mapping[str, Any]]:
        """Past and present ones, newest first."""
        return await self._ledger.history(app, limit)

    def _context(self, app: str) -> AppContext:
        """Raises UnknownApp, NotPossible."""
        lanes = self._lanes.live()
        if app not in lanes:
            raise UnknownApp(f"no app {app!r}; there are: {', '.join(lanes) or 'none'}")
        if not {app, ALL} & set(self._allowed):
            how = f"start the agent with --allow-exec {app}, or {ALL!r} for all apps"
            raise NotPossible(f"the agent's settings allow no commands in {app}; {how}")
        if not self._processes.keeper.gives_stdio:
            raise NotPossible("the keeper is of an earlier version; start emptybox again as a whole")
        return lanes[app].app

    @contextlib.asynccontextmanager
    async def _place(self, context: AppContext) -> AsyncIterator[_Place]:
        """Where a command of an app works. Raises NotPossible, Failure, OSError."""
        surroundings, child = self._processes.surroundings, context.serving.child
        if child is not None and child.alive:
            async with surroundings.lodging(child.instance):
                extra = port_variables(child.deployment.spec, child.gate, child.side)
                yield _Place(child.deployment, child.instance, extra, child.id)
            return
        current = context.current
        if current is None:
            raise NotPossible(f"nothing of {context.name} is deployed yet")
        with context.services.store.using(current.pair.release):
            instance = await surroundings.instance(current, new_id("i"))
            try:
                async with surroundings.lodging(instance):  # no tidying must take it away
                    yield _Place(current, instance)
            finally:
                await surroundings.remove_instance(instance)

    async def _run(
        self, place: _Place, by: str, command: Sequence[str], timeout: float, ends: Ends
    ) -> ExecEnd:
        app, entry = place.deployment.spec.name, new_id("exec")
        if ends.terminal is not None and place.deployment.spec.container is not None:
            raise NotPossible(f"{app} is in a container, where there are no terminals; leave -t out")
        await self._ledger.begin(entry, app, by, command)
        program = secrets.text(command[0])
        self._bus.publish(ExecStarted(app, entry, by, program, len(command) - 1))
        began, ended = time.monotonic(), INTERRUPTED
        try:
            result = await self._processes.attached(
                place.deployment, place.instance, command, timeout, place.extra, ends, place.beside
            )
            ended = result.ended
        except Failure as failure:
            ended = failure.info.reason
            raise
        finally:
            seconds = time.monotonic() - began
            self._ledger.end(entry, ended, seconds)
            self._bus.publish(ExecEnded(app, entry, by, program, ended, seconds))
        return ExecEnd(result.code, result.signal, result.timeout, result.limit, result.seconds)

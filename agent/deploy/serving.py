"""What serves an app: its child, the warm predecessor, and what happens when the child ends by itself.

A crash of the serving child, seen from its clients:

    open --child ends--> holding --restarted, healthy--> open
                            +--hold time over--> maintenance --restarted, healthy--> open

Restarts follow the pure policy of `agent.process.restart`: backoff, a budget, a cooldown. While a release
is on probation its crash is handed to the lane, which goes back instead.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from pathlib import Path
from typing import Protocol

from agent.deploy.child import Child
from agent.deploy.deployments import Deployment
from agent.deploy.processes import Processes
from agent.domain.errors import Failure, FailureInfo
from agent.domain.events import (
    AppFailed,
    Bus,
    ChildExited,
    ChildRestarting,
    ConditionChanged,
    PairCurrent,
)
from agent.domain.model import Condition, ConditionStatus
from agent.kit.tasks import Owned
from agent.process.restart import RestartAction, decide
from agent.traffic.state import Gate

log = logging.getLogger(__name__)


class Watcher(Protocol):
    """Who decides when a release on probation goes bad."""

    def crashed(self, child: Child, failure: FailureInfo) -> bool:
        """The serving child ended by itself. True: leave it to me."""

    def health(self, child: Child, failure: FailureInfo | None) -> None:
        """The verdict over the serving child changed: a failure, or None when it is healthy again."""


class Serving:
    """Owns the children of one app."""

    def __init__(self, app: str, processes: Processes, bus: Bus, watcher: Watcher) -> None:
        self.app = app
        self.child: Child | None = None
        self.warm: Child | None = None
        self._processes = processes
        self._bus = bus
        self._watcher = watcher
        self._tasks = Owned(f"{app}/serving")
        self._restart: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._exits: list[float] = []
        self.restarting = False

    async def aclose(self) -> None:
        """Stop looking after the children; they themselves go on."""
        await self._tasks.aclose()

    def free_side(self) -> int:
        """The side a new child takes: not the serving child's, else not the warm one's."""
        taken = self.child or self.warm
        return 1 - taken.side if taken is not None else 0

    async def start(
        self,
        deployment: Deployment,
        gate: Gate | None,
        side: int,
        run: str = "",
        instance: Path | None = None,
    ) -> Child:
        """Start a child that does not serve yet. Raises Failure."""
        child = await self._processes.start(deployment, gate, side, run, instance)
        self.look_after(child)
        return child

    def look_after(self, child: Child) -> None:
        """Learn of the child's end when it comes."""
        self._tasks.start(self._until_end(child), name=f"wait {child.id}")

    def take(self, child: Child, *, keep_old_warm: bool) -> Child | None:
        """From now on this child serves. Returns the old one, which stays warm when asked."""
        old = self.child
        self.stop_restarting()
        self.child = child
        if old is not None and old is not child:
            self.warm = old if keep_old_warm and old.alive else None
            if not old.alive:
                self._tasks.start(self._processes.forget(old), name=f"forget {old.id}")
        self._exits.clear()
        self.watch(child)
        return old

    def watch(self, child: Child) -> None:
        """Probe the serving child from now on and tell the watcher of changes."""
        if self._watch is not None:
            self._watch.cancel()
        self._watch = self._tasks.start(self._watch_health(child), name=f"watch {child.id}")

    def stop_watching(self) -> None:
        """Probe no more: the child is about to be stopped on purpose."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def stop_restarting(self) -> None:
        """Give up a restart in progress: something else takes its place."""
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        self.restarting = False

    async def retire(self, child: Child, *, take_over: bool = True) -> None:
        """Stop a child that serves no more; what still waits at its side is taken over by the others."""
        child.expected = True
        if child is self.warm:
            self.warm = None
        if child is self.child:
            self.stop_watching()
            self.child = None
        try:
            if take_over:
                await self._processes.connections_gone(child)
            await self._processes.stop(child)
        finally:
            if take_over and child.gate is not None:
                await child.gate.take_over(child.side)

    # -- the way back ------------------------------------------------------------------------------

    async def bring_back(self, deployment: Deployment, gate: Gate | None, side: int) -> bool:
        """Start a pair that served before and let it serve again; whether it is healthy.

        It serves even when its probe fails: it is the best there is. Raises Failure when it cannot start.
        """
        if gate is not None:
            await gate.open_ports()
        child = await self.start(deployment, gate, side)
        healthy = True
        try:
            await self._processes.until_healthy(child)
        except Failure as error:
            self._bus.publish(AppFailed(self.app, error.info))
            healthy = False
        if gate is not None:
            await gate.serve(side)
        self.take(child, keep_old_warm=False)
        if not child.alive:
            self.restart(child)
        self._bus.publish(PairCurrent(self.app, deployment.pair))
        return healthy

    async def hand_over(self, bad: Child, gate: Gate | None, side: int) -> None:
        """Hold the clients for `side` and stop the bad child."""
        if gate is not None:
            await gate.hold(side)
        await self.retire(bad)

    # -- ends --------------------------------------------------------------------------------------

    async def _until_end(self, child: Child) -> None:
        tail = await self._processes.until_end(child)
        serves = child is self.child or child is self.warm  # if not, its run sees the end and says why
        told = tail if serves and not child.expected else ()
        self._bus.publish(ChildExited(self.app, child.id, child.code, child.signal, child.expected, told))
        if child is self.warm:
            self.warm = None
            await self._processes.forget(child)
        elif child is self.child and not child.expected:
            self.stop_watching()
            await self._crashed(child, tail)

    async def _crashed(self, child: Child, tail: tuple[str, ...]) -> None:
        failure = child.exit_failure(tail)
        self._bus.publish(AppFailed(self.app, failure))
        if self._watcher.crashed(child, failure):
            return
        self.restart(child)

    def restart(self, dead: Child) -> None:
        """Bring an ended child's deployment up again, as the policy says."""
        self.restarting = True
        self._restart = self._tasks.start(self._restart_until_up(dead), name="restart")

    async def _restart_until_up(self, dead: Child) -> None:
        """Hold the clients, run the crash hook, and start again as the policy says until it is healthy."""
        spec = dead.deployment.spec
        assert spec.run is not None
        if dead.gate is not None:
            await dead.gate.hold(dead.side)
        await self._processes.hook(dead.deployment, "crashed", _crash_environment(dead))
        await self._processes.forget(dead)
        while True:
            now = time.monotonic()
            self._exits.append(now)
            decision = decide(spec.run.restart, self._exits, now, random.random())  # noqa: S311 - jitter
            if decision.action is RestartAction.COOLDOWN:
                self._condition("CrashLooping", "True", "BudgetSpent", decision.reason)
                if dead.gate is not None:
                    await dead.gate.maintain()
            self._bus.publish(ChildRestarting(self.app, decision.delay, decision.reason))
            await asyncio.sleep(decision.delay)
            try:
                child = await self._start_again(dead)
            except Failure as error:
                self._bus.publish(AppFailed(self.app, error.info))
                continue
            self._condition("CrashLooping", "False", "Restarted", "")
            self.restarting = False
            self._restart = None
            self.child = child
            self.watch(child)
            self._watcher.health(child, None)
            return

    async def _start_again(self, dead: Child) -> Child:
        child = await self._processes.start(dead.deployment, dead.gate, dead.side, "")
        try:
            self.look_after(child)
            await self._processes.until_healthy(child)
            if dead.gate is not None:
                await dead.gate.serve(dead.side)
        except BaseException:
            child.expected = True
            await asyncio.shield(self._processes.stop(child))
            raise
        self._bus.publish(PairCurrent(self.app, child.deployment.pair))
        return child

    async def _watch_health(self, child: Child) -> None:
        async for failure in self._processes.watch(child):
            self._watcher.health(child, failure)

    def _condition(self, kind: str, status: str, reason: str, message: str) -> None:
        condition = Condition(kind, ConditionStatus(status), reason, message, time.time())
        self._bus.publish(ConditionChanged(self.app, condition))


def _crash_environment(child: Child) -> dict[str, str]:
    return {
        "EMPTYBOX_EXIT_CODE": "" if child.code is None else str(child.code),
        "EMPTYBOX_EXIT_SIGNAL": "" if child.signal is None else str(child.signal),
    }

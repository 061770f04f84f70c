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
from agent.deploy.failures import as_info
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
from agent.kit.tasks import Owned, stop
from agent.process.restart import RestartAction, decide
from agent.traffic.state import CLOSED, Gate

log = logging.getLogger(__name__)


class Watcher(Protocol):
    """Who decides when a release on probation goes bad."""

    def crashed(self, child: Child, failure: FailureInfo) -> bool:
        """The serving child ended by itself. True: leave it to me."""

    def health(self, child: Child, failure: FailureInfo | None) -> None:
        """The verdict over the serving child changed: a failure, or None when it is healthy again."""

    def changed(self) -> None:
        """A restart began, or its clients are looked after in another way."""


class Serving:
    """Owns the children of one app.

    `child` is the one that serves, or that ended and is being restarted; `warm` its predecessor.
    """

    def __init__(self, app: str, processes: Processes, bus: Bus, watcher: Watcher) -> None:
        self.app = app
        self.child: Child | None = None
        self.warm: Child | None = None
        self._processes = processes
        self._bus = bus
        self._watcher = watcher
        self._tasks = Owned(f"{app}/serving")
        self._kept: list[Child] = []  # everyone who is looked after
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._restart: asyncio.Task[None] | None = None
        self._restarts_at: Gate | None = None
        self._watch: asyncio.Task[None] | None = None
        self._exits: list[float] = []
        self._looping = False

    async def aclose(self) -> None:
        """Stop looking after the children; they themselves go on."""
        await self._tasks.aclose()

    @property
    def restarting(self) -> bool:
        """Whether what should serve is being started again."""
        return self._restart is not None

    @property
    def nobody(self) -> bool:
        """Whether nobody serves, and nobody is about to."""
        return not self.restarting and (self.child is None or not self.child.alive)

    def everyone(self) -> list[Child]:
        """All children that are looked after, and the one that serves."""
        return list(dict.fromkeys(c for c in (*self._kept, self.child) if c is not None))

    def gates(self) -> list[Gate]:
        """Those that a child of ours needs, or one that is being started again."""
        needed = [child.gate for child in self.everyone()]
        return [gate for gate in (*needed, self._restarts_at if self._restart else None) if gate is not None]

    def free_side(self) -> int:
        """The side a new child takes: not the serving child's, else not the warm one's."""
        taken = self.child or self.warm
        return 1 - taken.side if taken is not None else 0

    def others(self, side: int) -> list[Child]:
        """Who lives on a side and is not the one that serves."""
        return [child for child in self._kept if child.side == side and child is not self.child]

    async def clear(self, side: int) -> None:
        """See to it that nobody but the serving child lives on a side: others are stopped, and waited for.

        Two children of one side accept from one socket, and it is not known who answers. Raises Failure.
        """
        for child in self.others(side):
            await self.retire(child)

    async def start(
        self,
        deployment: Deployment,
        gate: Gate | None,
        side: int,
        run: str = "",
        instance: Path | None = None,
    ) -> Child:
        """Start a child that does not serve yet. Raises Failure, OSError."""
        child = await self._processes.start(deployment, gate, side, run, instance)
        self.look_after(child)
        return child

    def look_after(self, child: Child) -> None:
        """Learn of the child's end when it comes."""
        self._kept.append(child)
        self._tasks.start(self._until_end(child), name=f"wait {child.id}")

    async def take(self, child: Child) -> None:
        """From now on this child serves. The old one stays warm, unless it has ended."""
        await self.stop_restarting()
        old, self.child = self.child, child
        if child is self.warm:
            self.warm = None
        if old is not None and old is not child and old.alive and not old.expected:
            self.warm = old
        elif old is not None and old is not child:
            self._tasks.start(self.retire(old), name=f"bury {old.id}")
        self._exits.clear()
        self._loops(False, "AsWanted")
        self.watch(child)
        if not child.alive:  # it ended in the moment between its last probe and now
            self._tasks.start(self._crashed(child), name=f"crash {child.id}")

    def watch(self, child: Child) -> None:
        """Probe the serving child from now on and tell the watcher of changes."""
        self.stop_watching()
        self._watch = self._tasks.start(self._watch_health(child), name=f"watch {child.id}")

    def stop_watching(self) -> None:
        """Probe no more: the child is about to be stopped on purpose."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    async def stop_restarting(self) -> None:
        """Give up a restart in progress: something else takes its place."""
        restart, self._restart = self._restart, None
        if restart is not None:
            await stop(restart)

    async def retire(self, child: Child, *, take_over: bool = True) -> None:
        """Stop a child that serves no more; what still waits at its side is taken over by the others.

        Asked for again, or cancelled, it goes on to the same end. Raises Failure.
        """
        if child.id not in self._leaving:
            child.expected = True
            if child is self.warm:
                self.warm = None
            if child is self.child:
                self.stop_watching()
                self.child = None
            ending = self._end(child, take_over)
            self._leaving[child.id] = self._tasks.start(ending, name=f"retire {child.id}")
        await asyncio.shield(self._leaving[child.id])

    async def _end(self, child: Child, take_over: bool) -> None:
        try:
            if take_over:
                await self._processes.connections_gone(child)
            await self._processes.stop(child)
        finally:
            del self._leaving[child.id]
            if child in self._kept:
                self._kept.remove(child)
            if take_over and child.gate is not None:
                await child.gate.take_over(child.side)

    # -- the way back ------------------------------------------------------------------------------

    async def bring_back(self, deployment: Deployment, gate: Gate | None, side: int) -> bool:
        """Start a pair that served before and let it serve again; whether it is healthy.

        It serves even when its probe fails: it is the best there is. Raises Failure or OSError when it
        cannot start.
        """
        await self.clear(side)
        if gate is not None:
            await gate.open_ports()
        child = await self.start(deployment, gate, side)
        healthy = True
        try:
            try:
                await self._processes.until_healthy(child)
            except Failure as error:
                self._bus.publish(AppFailed(self.app, error.info))
                healthy = False
            await self.stop_restarting()
            if gate is not None:
                await gate.serve(side)
        except BaseException:
            await self.retire(child)
            raise
        await self.take(child)
        self._bus.publish(PairCurrent(self.app, deployment.pair))
        return healthy

    async def replace_by_page(self, child: Child) -> None:
        """Nobody takes a bad child's place: it is stopped, and clients get the page. Raises Failure."""
        await self.stop_restarting()
        if child.gate is not None:
            await child.gate.maintain()
        await self.retire(child)

    # -- ends --------------------------------------------------------------------------------------

    async def _until_end(self, child: Child) -> None:
        await self._processes.until_end(child)
        lines = () if child.expected else child.log
        self._bus.publish(ChildExited(self.app, child.id, child.code, child.signal, child.expected, lines))
        if child.expected:
            return
        if child is self.warm:
            await self.retire(child)
        elif child is self.child:
            await self._crashed(child)
        # else a new child: its run sees the end and tells it

    async def _crashed(self, child: Child) -> None:
        self.stop_watching()
        failure = child.exit_failure()
        self._bus.publish(AppFailed(self.app, failure))
        if not self._watcher.crashed(child, failure) and child is self.child:
            self.restart(child.deployment, child.gate, child.side, child)

    def restart(
        self, deployment: Deployment, gate: Gate | None, side: int, dead: Child | None = None
    ) -> None:
        """Bring a deployment up again that served, as the policy says, until it does."""
        self._restarts_at = gate
        restarting = self._restart_until_up(deployment, gate, side, dead)
        self._restart = self._tasks.start(restarting, name="restart")
        self._watcher.changed()

    async def _restart_until_up(
        self, deployment: Deployment, gate: Gate | None, side: int, dead: Child | None
    ) -> None:
        """Hold the clients, run the crash hook, and start again as the policy says until it is healthy."""
        if dead is not None:
            await self._mourn(dead)
        child = None
        while child is None:
            await asyncio.sleep(await self._pause(deployment, gate))
            try:
                child = await self._start_again(deployment, gate, side)
            except Exception as error:  # whatever it is: it must not be the last try
                self._bus.publish(AppFailed(self.app, as_info(error, "restart")))
        self._restart = None
        self.child = child
        self.watch(child)
        self._loops(False, "Restarted")
        self._bus.publish(PairCurrent(self.app, deployment.pair))
        self._watcher.health(child, None)
        if not child.alive:
            await self._crashed(child)

    async def _mourn(self, dead: Child) -> None:
        """What is done for a dead child before the next one: nothing of it may keep that from coming."""
        try:
            if dead.gate is not None and dead.gate.state != CLOSED:
                await dead.gate.hold(dead.side)
                self._watcher.changed()
            await self._processes.hook(dead.deployment, "crashed", _crash_environment(dead))
            await self._processes.forget(dead)
        except Exception as error:
            self._bus.publish(AppFailed(self.app, as_info(error, "after the crash")))
        finally:
            if dead in self._kept:
                self._kept.remove(dead)

    async def _pause(self, deployment: Deployment, gate: Gate | None) -> float:
        """Seconds until the next try, as the policy says; in a cooldown clients get the page."""
        assert deployment.spec.run is not None
        policy, now = deployment.spec.run.restart, time.monotonic()
        self._exits = [at for at in self._exits if now - at < policy.window] + [now]
        decision = decide(policy, self._exits, now, random.random())  # noqa: S311 - jitter
        if decision.action is RestartAction.COOLDOWN:
            self._loops(True, "BudgetSpent", decision.reason)
            if gate is not None and gate.state != CLOSED:
                await gate.maintain()
        self._bus.publish(ChildRestarting(self.app, decision.delay, decision.reason))
        self._watcher.changed()
        return decision.delay

    async def _start_again(self, deployment: Deployment, gate: Gate | None, side: int) -> Child:
        await self.clear(side)
        if gate is not None:
            await gate.open_ports()
        child = await self.start(deployment, gate, side)
        try:
            await self._processes.until_healthy(child)
            if gate is not None:
                await gate.serve(side)
        except BaseException:
            await self.retire(child)
            raise
        return child

    async def _watch_health(self, child: Child) -> None:
        async for failure in self._processes.watch(child):
            self._watcher.health(child, failure)

    def _loops(self, looping: bool, reason: str, message: str = "") -> None:
        if looping or self._looping:
            status = ConditionStatus.TRUE if looping else ConditionStatus.FALSE
            condition = Condition("CrashLooping", status, reason, message, time.time())
            self._bus.publish(ConditionChanged(self.app, condition))
        self._looping = looping


def _crash_environment(child: Child) -> dict[str, str]:
    return {
        "EMPTYBOX_EXIT_CODE": "" if child.code is None else str(child.code),
        "EMPTYBOX_EXIT_SIGNAL": "" if child.signal is None else str(child.signal),
    }

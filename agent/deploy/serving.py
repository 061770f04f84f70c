"""What serves an app: its child, the warm predecessor, and what happens when the child ends by itself.

A crash of the serving child, seen from its clients:

    open --child ends--> holding --restarted, healthy--> open
                            +--hold time over--> maintenance --restarted, healthy--> open

Restarts follow the pure policy of `agent.process.restart`: backoff, a budget, a cooldown. While a release
is on probation its crash is handed to the lane, which goes back instead. Of several instances the others
serve on (`instances`); what is said here is for when the last one ends.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Protocol

from agent.deploy.child import Child
from agent.deploy.deployments import Deployment
from agent.deploy.failures import as_info
from agent.deploy.instances import Instances
from agent.deploy.processes import Processes
from agent.deploy.roster import Roster
from agent.domain.errors import Failure, FailureInfo
from agent.domain.events import (
    AppFailed,
    Bus,
    ChildRestarting,
    ConditionChanged,
    PairCurrent,
)
from agent.domain.model import Condition, ConditionStatus
from agent.kit.tasks import stop
from agent.process.restart import RestartAction, decide
from agent.traffic.state import CLOSED, Gate

TAIL_MAX = 16 << 10  # characters of a program's last lines that its crash hook is given


class Watcher(Protocol):
    """Who decides when a release on probation goes bad."""

    def crashed(self, child: Child, failure: FailureInfo) -> bool:
        """The serving child ended by itself. True: leave it to me."""

    def health(self, child: Child, failure: FailureInfo | None) -> None:
        """The verdict over the serving child changed: a failure, or None when it is healthy again."""

    def changed(self) -> None:
        """A restart began, or its clients are looked after in another way."""


class Serving(Roster):
    """Owns the children of one app.

    `child` is the one that serves, or that ended and is being restarted; `warm` its predecessor. Of several
    instances each stands for its crew.
    """

    def __init__(self, app: str, processes: Processes, bus: Bus, watcher: Watcher) -> None:
        super().__init__(app, processes, bus)
        self.child: Child | None = None
        self.warm: Child | None = None
        self._watcher = watcher
        self.instances = Instances(
            self, processes, bus, watcher, self._pause_beside, self._all_there, self._tasks
        )
        self._restart: asyncio.Task[None] | None = None
        self._restarts_at: Gate | None = None
        self._exits: list[float] = []
        self._looping = False

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

    def role(self, child: Child) -> str:
        """What a child is for: serving, unwell (of several), standby, or starting."""
        for word, lead in (("serving", self.child), ("standby", self.warm)):
            if lead is not None and child.joined and child in self.crew(lead):
                return "unwell" if word == "serving" and self.instances.unwell(child) else word
        return "starting"

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

    def leaders(self, side: int) -> list[Child]:
        """Of those the first of each crew."""
        crews = {id(crew[0]): crew[0] for crew in map(self.crew, self.others(side))}
        return list(crews.values())

    async def clear(self, side: int) -> None:
        """See to it that nobody but the serving child lives on a side: others are stopped, and waited for.

        Two children of one side accept from one socket, and it is not known who answers. Raises Failure.
        """
        for child in self.others(side):
            await self.retire_one(child)

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
        """Probe what serves from now on, tell the watcher of changes, and have all of its instances."""
        self.instances.watch(child)

    def stop_watching(self) -> None:
        """Probe no more: the child is about to be stopped on purpose."""
        self.instances.stop()

    async def stop_restarting(self) -> None:
        """Give up a restart in progress: something else takes its place."""
        restart, self._restart = self._restart, None
        if restart is not None:
            await stop(restart)

    def _goes(self, child: Child) -> None:
        if child is self.warm:
            self.warm = None
        if child is self.child:
            self.stop_watching()
            self.child = None

    def _gone(self) -> None:
        self._watcher.changed()

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

    async def _ended(self, child: Child) -> None:
        if self.warm is not None and child in self.crew(self.warm):
            await self._lost_warm(child, self.warm)
        elif self.child is not None and child.joined and child in self.crew(self.child):
            await self._crashed(child)
        # else a new child: its run sees the end and tells it

    async def _lost_warm(self, child: Child, warm: Child) -> None:
        """One of the warm predecessor's instances ended: the others stand by."""
        left = self.serving_crew(warm)
        if left:
            self.warm = left[0] if child is warm else warm
            await self.instances.staff(left[0])
        await self.retire_one(child)

    async def _crashed(self, child: Child) -> None:
        failure = child.exit_failure()
        left = self.serving_crew(child)
        if not left:
            self.stop_watching()
        elif child is self.child:
            self.child = left[0]
            self.instances.follow(left[0])
        self._bus.publish(AppFailed(self.app, failure))
        if left and self.child is not None:
            self._watcher.crashed(self.child, failure)
            await self.instances.staff(left[0])
            await self.instances.replace(child, self._bury)
        elif not self._watcher.crashed(child, failure) and child is self.child:
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
        except Exception as error:
            self._bus.publish(AppFailed(self.app, as_info(error, "after the crash")))
        await self._bury(dead)

    async def _bury(self, dead: Child) -> None:
        """Run the crash hook, and keep nothing of it."""
        try:
            await self._processes.hook(dead.deployment, "crashed", crash_environment(dead))
            await self._processes.forget(dead)
        except Exception as error:
            self._bus.publish(AppFailed(self.app, as_info(error, "after the crash")))
        finally:
            self._drop(dead)

    async def _pause_beside(self, lead: Child) -> float:
        """The same for one of several instances; the others serve on."""
        return await self._pause(lead.deployment, None)

    def _all_there(self) -> None:
        self._loops(False, "Restarted")

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
        async with self._processes.crowd.turn():
            child = await self.start(deployment, gate, side)
            try:
                await self._processes.until_healthy(child)
                if gate is not None:
                    await gate.serve(side)
            except BaseException:
                await self.retire(child)
                raise
        return child

    def _loops(self, looping: bool, reason: str, message: str = "") -> None:
        if looping or self._looping:
            status = ConditionStatus.TRUE if looping else ConditionStatus.FALSE
            condition = Condition("CrashLooping", status, reason, message, time.time())
            self._bus.publish(ConditionChanged(self.app, condition))
        self._looping = looping


def crash_environment(child: Child) -> dict[str, str]:
    """What a crash hook is told: how the program ended, which instance it was, and its last lines."""
    return {
        "EMPTYBOX_EXIT_CODE": "" if child.code is None else str(child.code),
        "EMPTYBOX_EXIT_SIGNAL": "" if child.signal is None else str(child.signal),
        "EMPTYBOX_INSTANCE": str(child.number),
        "EMPTYBOX_LOG_TAIL": "\n".join(child.log).replace("\0", "")[-TAIL_MAX:],
    }

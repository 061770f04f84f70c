"""Stop: the old child goes before the new one comes (swap: restart); clients are held, then get the page."""

from __future__ import annotations

import asyncio
import logging

from agent.deploy.child import Child
from agent.deploy.ledger import release_of
from agent.deploy.run import Crash, RunContext, Step
from agent.deploy.way_back import REMEDY, SCHEMA_TOO_NEW, way_back
from agent.domain.errors import Failure
from agent.domain.model import PlannedStep
from agent.traffic.gate import SlotGate
from agent.traffic.state import Gate, GateState, Mode

log = logging.getLogger(__name__)


class Stop(Step):
    """Holds the port and stops the old child. Undo starts the old pair again."""

    kind = "stop"
    crash = Crash.UNDO

    def deadline(self, context: RunContext) -> float:
        """The old child's grace, the drain, and a margin."""
        old = context.old
        run = old.deployment.spec.run if old is not None else None
        grace = run.stop.grace * run.instances if run is not None else 10.0
        return grace + context.spec.drain.deadline + 30.0

    async def run(self, context: RunContext, step: PlannedStep) -> None:
        """Raises Failure when the port cannot be held."""
        context.committed = True
        serving = context.serving
        await context.journal.mark(context.id, "stop", durable=True)
        await serving.stop_restarting()
        old = context.old = serving.child
        if old is None:
            return
        serving.stop_watching()
        context.stopped_old = old.deployment
        if old.gate is None:
            await serving.retire(old)
        elif old.gate is context.gate and isinstance(context.gate, SlotGate):
            await context.gate.hold(context.side)
            await context.gate.drained(old.side, context.spec.drain.deadline)
            await serving.retire(old)
        elif old.gate is context.gate:
            async with asyncio.TaskGroup() as group:
                group.create_task(context.gate.hold(context.side), name="hold")
                group.create_task(serving.retire(old, take_over=False), name="retire")
        else:  # the ports themselves change: the old gate goes with the old child
            await serving.retire(old, take_over=False)
            await context.gates.give_up(old.gate)
            if context.gate is not None:
                await context.gate.open_ports()
                context.gates.lead(context.gate)
                await context.gate.hold(context.side)

    async def undo(self, context: RunContext) -> None:
        """Let the old pair serve again, by its own ports; a run that switched keeps the new one.

        A pair that cannot be started now is tried again and again from then on.
        """
        old = context.old
        if context.switched or context.stopped_old is None or old is None:
            return
        if context.serving.child is old and old.alive:  # it failed before the old one was touched
            await self._reopen(context, old)
            return
        gate, side = context.gates.of(context.stopped_old.spec), context.side
        if context.gate is not None and context.gate is not gate:
            await context.gates.give_up(context.gate)
        context.gates.lead(gate)
        ledger, release = context.journal.ledger, release_of(context.stopped_old.pair)
        if not ledger.fit(context.app, release):
            await self._stay_down(context, gate)
            return
        try:
            context.back_healthy = await context.serving.bring_back(context.stopped_old, gate, side)
        except (Failure, OSError):
            context.serving.restart(context.stopped_old, gate, side)
            raise

    async def _stay_down(self, context: RunContext, gate: Gate | None) -> None:
        """The data are not the old pair's any more: clients get the page, a person is told."""
        assert context.stopped_old is not None
        old = context.stopped_old
        way = way_back(
            context.journal.ledger, context.app, release_of(old.pair), old.spec.version, None, False
        )
        context.stuck = way.blocked or f"the data are not those of version {old.spec.version}"
        context.condition("RollbackBlocked", True, SCHEMA_TOO_NEW, f"{context.stuck}; {REMEDY}")
        if gate is not None:
            await gate.open_ports()
            await gate.maintain()

    async def _reopen(self, context: RunContext, old: Child) -> None:
        if old.gate is not None and old.gate.state != GateState(Mode.OPEN, old.side):
            await old.gate.serve(old.side)
        context.serving.watch(old)
        context.back_healthy = await context.processes.healthy_now(old)

    def undo_deadline(self, context: RunContext) -> float:
        """What starting the old pair and probing it may take."""
        health = context.old.deployment.spec.health if context.old is not None else context.spec.health
        return health.deadline + health.timeout + 60.0

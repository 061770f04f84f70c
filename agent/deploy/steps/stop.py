"""Stop: the old child goes before the new one comes (swap: restart); clients are held, then get the page."""

from __future__ import annotations

import asyncio

from agent.deploy.run import RunContext, Step
from agent.domain.model import PlannedStep
from agent.traffic.gate import SlotGate


class Stop(Step):
    """Holds the port and stops the old child. Undo starts the old pair again."""

    kind = "stop"

    def deadline(self, context: RunContext) -> float:
        """The old child's grace, the drain, and a margin."""
        old = context.old
        grace = old.deployment.spec.run.stop.grace if old is not None and old.deployment.spec.run else 10.0
        return grace + context.spec.drain.deadline + 30.0

    async def run(self, context: RunContext, step: PlannedStep) -> None:
        """Raises Failure when the port cannot be held."""
        context.committed = True
        serving = context.serving
        serving.stop_watching()
        serving.stop_restarting()
        old = serving.child
        context.stopped_old = old.deployment if old is not None else None
        await context.journal.mark(context.id, "stop", durable=True)
        if old is None:
            return
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
        """Start the old pair again on its ports; a run that switched keeps the new one."""
        old = context.stopped_old
        if context.switched or old is None:
            return
        gate = context.gates.of(old.spec)
        if context.gate is not None and context.gate is not gate:
            await context.gates.give_up(context.gate)
        context.gates.lead(gate)
        context.back_healthy = await context.serving.bring_back(old, gate, context.side)

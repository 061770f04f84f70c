"""Start: the new child is spawned on its side of the gate."""

from __future__ import annotations

from agent.deploy.run import RunContext, Step
from agent.domain.model import PlannedStep


class Start(Step):
    """Spawns the child. Undo stops it."""

    kind = "start"

    def deadline(self, context: RunContext) -> float:
        """Spawning is a moment; the stop of a warm predecessor on this side may not be."""
        return 60.0 + (context.spec.run.stop.grace if context.spec.run else 0.0)

    async def run(self, context: RunContext, step: PlannedStep) -> None:
        """Raises Failure: the program is not there, not executable, the user is not allowed."""
        assert context.deployment is not None
        context.committed = True
        if context.clear_side is not None:
            await context.clear_side
        if context.gate is not None:
            await context.gate.open_ports()
        context.child = await context.serving.start(
            context.deployment, context.gate, context.side, context.id, context.instance
        )
        context.marked = context.journal.mark(context.id, "start", durable=True)  # while the probe waits

    async def undo(self, context: RunContext) -> None:
        """Stop the new child, unless it serves."""
        if context.switched or context.child is None:
            return
        if context.gate is not None:
            await context.gate.steer_probe(None)
        await context.serving.retire(context.child)
        old = context.serving.child
        if context.gate is not None and old is not None and context.gate is not old.gate:
            await context.gates.give_up(context.gate)

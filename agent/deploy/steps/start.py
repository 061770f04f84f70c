"""Start: the new child is spawned on its side of the gate."""

from __future__ import annotations

from agent.deploy.run import Crash, RunContext, Step
from agent.domain.model import PlannedStep
from agent.domain.spec import AppSpec


class Start(Step):
    """Spawns the child. Undo stops it."""

    kind = "start"
    crash = Crash.UNDO

    def deadline(self, context: RunContext) -> float:
        """Spawning is a moment; the stop of who is still on this side may not be."""
        return 60.0 + _stop_time(context.old.deployment.spec if context.old is not None else context.spec)

    async def run(self, context: RunContext, step: PlannedStep) -> None:
        """Raises Failure: the program is not there, not executable, the user is not allowed."""
        assert context.deployment is not None
        context.committed = True
        await context.serving.clear(context.side)
        await context.gates.make_room(context.spec, *context.serving.gates())
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

    def undo_deadline(self, context: RunContext) -> float:
        """What stopping the new child may take."""
        return 60.0 + _stop_time(context.spec)


def _stop_time(spec: AppSpec) -> float:
    stop = spec.run.stop.grace * spec.run.instances if spec.run is not None else 0.0
    return spec.drain.deadline + stop

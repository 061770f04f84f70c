"""Switch: new connections go to the new child, and `current` names its deployment.

Order: journal and deployment are on disk first, then the kernel flips, then the link is renamed. After a
crash in between, the gate's own note says who serves, and the link is brought in line.
"""

from __future__ import annotations

import asyncio

from agent.deploy.run import RunContext, Step
from agent.domain.events import PairCurrent
from agent.domain.model import PlannedStep


class Switch(Step):
    """The flip."""

    kind = "switch"
    shielded = True

    def deadline(self, context: RunContext) -> float:
        """One commit, one system call, one rename."""
        return 60.0

    async def run(self, context: RunContext, step: PlannedStep) -> None:
        """Raises OSError."""
        assert context.child is not None
        assert context.deployment is not None
        if context.marked is not None:
            await context.marked
        await context.written()
        if context.gate is not None:
            await context.gate.serve(context.side)
        context.gates.lead(context.gate)
        context.switched = True
        context.serving.take(context.child, keep_old_warm=True)
        await asyncio.to_thread(context.deployments.link, "current", context.deployment)
        context.bus.publish(PairCurrent(context.app, context.deployment.pair))

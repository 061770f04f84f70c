"""Switch: new connections go to the new child, and `current` names its deployment.

Order: journal and deployment are on disk first, then the kernel flips, then the link is renamed. After a
crash in between, the gate's own note says who serves, and the link is brought in line.
"""

from __future__ import annotations

import asyncio

from agent.deploy.ledger import release_of
from agent.deploy.run import Crash, RunContext, Step
from agent.deploy.services import AS_WANTED
from agent.domain.errors import Permanent
from agent.domain.events import PairCurrent
from agent.domain.model import PlannedStep


class Switch(Step):
    """The flip."""

    kind = "switch"
    crash = Crash.RESUME
    shielded = True

    def deadline(self, context: RunContext) -> float:
        """One commit, one system call, one rename; and the end of a restart, if there is one."""
        return 60.0

    async def run(self, context: RunContext, step: PlannedStep) -> None:
        """Raises Permanent("ChildExited"), OperatorNeeded, OSError."""
        child = context.child
        assert child is not None
        assert context.deployment is not None
        if context.marked is not None:
            await context.marked
        await context.written()
        await context.serving.stop_restarting()  # or it might flip the gate back
        gone = next((each for each in context.serving.crew(child) if not each.alive), None)
        if gone is not None:
            told = gone.exit_failure()
            raise Permanent(told.reason, told.message, where=told.where, remedy=told.remedy, log=told.log)
        await context.journal.ledger.reach(context.app, release_of(context.deployment.pair))
        if context.gate is not None:
            await context.gate.serve(context.side)
        context.gates.lead(context.gate)
        context.switched = True
        context.condition("RollbackBlocked", False, AS_WANTED, "")
        await context.serving.take(child)
        context.bus.publish(PairCurrent(context.app, context.deployment.pair))
        await asyncio.to_thread(context.deployments.link, "current", context.deployment)

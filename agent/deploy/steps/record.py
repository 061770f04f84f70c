"""Record: what serves from now on has another name, and nothing had to be touched for it."""

from __future__ import annotations

import asyncio

from agent.deploy.ledger import release_of
from agent.deploy.run import Crash, RunContext, Step
from agent.domain.events import PairCurrent
from agent.domain.model import PlannedStep


class Record(Step):
    """Writes the deployment if no step did, and points `current` at it."""

    kind = "record"
    crash = Crash.RESUME
    shielded = True

    def deadline(self, context: RunContext) -> float:
        """A few small files."""
        return 60.0

    async def run(self, context: RunContext, step: PlannedStep) -> None:
        """Raises OSError."""
        await context.journal.mark(context.id, "record", durable=True)
        if context.deployment is None:
            context.deployment = context.describe()
        await context.written()
        await context.journal.ledger.reach(context.app, release_of(context.deployment.pair))
        await asyncio.to_thread(context.deployments.link, "current", context.deployment)
        context.switched = True
        child = context.serving.child
        if child is not None:
            for each in context.serving.crew(child):
                each.deployment = context.deployment
                await context.processes.renamed(each)
            context.serving.watch(child)
        context.bus.publish(PairCurrent(context.app, context.deployment.pair))

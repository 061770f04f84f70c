"""Unpack: the release's tree is whole, synced and in the store."""

from __future__ import annotations

from agent.deploy.run import RunContext, Step
from agent.domain.errors import Transient
from agent.domain.model import PlannedStep


class Release(Step):
    """Waits until the store has the tree; one that is there already is looked at, and put right."""

    kind = "release"
    late = Transient  # a slow disk is no fault of the specification

    def deadline(self, context: RunContext) -> float:
        """Unpacking goes on while downloading; the rest is the sync to disk."""
        return 900.0

    async def run(self, context: RunContext, step: PlannedStep) -> None:
        """Raises Failure."""
        if context.delivery is not None:
            await context.delivery.published()
        else:
            await context.processes.surroundings.wholeness.ensure(context.spec, context.release)

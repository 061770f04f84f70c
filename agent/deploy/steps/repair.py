"""Repair: files and links that were changed on this host are as they were written again."""

from __future__ import annotations

import asyncio

from agent.deploy.generations import repair_generation
from agent.deploy.places import build_view, view_is_whole
from agent.deploy.run import Crash, RunContext, Step
from agent.domain.model import PlannedStep


class Repair(Step):
    """Each file is put back by one rename. There is no way back from it."""

    kind = "repair"
    crash = Crash.REDO

    def deadline(self, context: RunContext) -> float:
        """Small files."""
        return 120.0

    async def run(self, context: RunContext, step: PlannedStep) -> None:
        """Raises OperatorNeeded, OSError."""
        surroundings, spec = context.processes.surroundings, context.spec
        # Only described: it is written already, and serves.
        deployment = context.deployment = context.deployments.describe(spec, context.pair)
        if deployment.generation is not None:
            owner = surroundings.owner(spec)
            await asyncio.to_thread(repair_generation, deployment.generation, spec.files, owner)
        if spec.places:
            if not await asyncio.to_thread(view_is_whole, deployment):
                await asyncio.to_thread(build_view, deployment)
            await asyncio.to_thread(surroundings.places(spec.name).settle, spec.places)

"""Render: the rendered files become a config generation on disk."""

from __future__ import annotations

import asyncio

from agent.deploy.generations import write_generation
from agent.deploy.run import Crash, RunContext, Step
from agent.domain.model import PlannedStep


class Render(Step):
    """Writes the generation whole, or finds it written."""

    kind = "render"
    crash = Crash.REDO

    def deadline(self, context: RunContext) -> float:
        """Small files."""
        return 120.0

    async def run(self, context: RunContext, step: PlannedStep) -> None:
        """Raises OSError."""
        if context.spec.files:
            owner = context.processes.surroundings.owner(context.spec)
            await asyncio.to_thread(write_generation, context.directory.generations, context.spec, owner)

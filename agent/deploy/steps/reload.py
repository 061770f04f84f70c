"""Reload: the running child sees the new files and is told so."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

from agent.deploy.child import Child
from agent.deploy.instance import point_config
from agent.deploy.run import Crash, RunContext, Step
from agent.domain.model import PlannedStep


class Place(Step):
    """Changes the files under the running child without telling it."""

    kind = "place"
    crash = Crash.REDO

    def deadline(self, context: RunContext) -> float:
        """A few renames."""
        return 60.0

    async def run(self, context: RunContext, step: PlannedStep) -> None:
        """Raises OSError."""
        assert context.deployment is not None
        context.committed = True
        generation = context.deployment.generation
        if generation is None:
            return
        for child in _crew(context):
            await asyncio.to_thread(_show, child, generation)

    async def undo(self, context: RunContext) -> None:
        """Show the child its old files again."""
        for child in _crew(context) if not context.switched else ():
            if child.deployment.generation is not None:
                await asyncio.to_thread(_show, child, child.deployment.generation)


class Reload(Place):
    """Changes the files, then sends the signal or runs the command the specification names."""

    kind = "reload"
    crash = Crash.REDO

    async def run(self, context: RunContext, step: PlannedStep) -> None:
        """Raises Permanent("ReloadFailed"), OSError."""
        await super().run(context, step)
        for child in _crew(context):
            await context.processes.reload(child, context.spec, _targets(context))

    async def undo(self, context: RunContext) -> None:
        """Show the old files again and tell the child."""
        await super().undo(context)
        for child in _crew(context) if not context.switched else ():
            await context.processes.reload(child, child.deployment.spec, _targets(context))


def _show(child: Child, generation: Path) -> None:
    """Let a child see a generation in the place of its own. Raises OSError."""
    point_config(child.instance, generation)
    if child.deployment.spec.container is not None:
        from agent.process.oci.showing import show

        show(child.instance, child.id, child.pid, generation)


def _crew(context: RunContext) -> list[Child]:
    """Every instance of what serves."""
    child = context.serving.child
    return context.serving.serving_crew(child) if child is not None else []


def _targets(context: RunContext) -> tuple[str, ...]:
    """The changed files that the child is told of."""
    for step in context.plan.steps:
        if step.kind == Reload.kind:
            return tuple(map(str, cast("tuple[str, ...]", step.options.get("targets", ()))))
    return ()

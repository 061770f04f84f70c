"""Put: the places outside show the new files, by one rename; then the command behind `after` runs.

Order: everything is on disk first, then `current` is renamed, then links that were not there before are
made, then `after` runs. A run that is killed on the way is not taken for done: it is carried out again.
"""

from __future__ import annotations

import asyncio

from agent.deploy.places import build_view
from agent.deploy.run import Crash, RunContext, Step
from agent.domain.model import PlannedStep, new_id


class Put(Step):
    """Undo shows the old files again."""

    kind = "put"
    crash = Crash.REDO

    def deadline(self, context: RunContext) -> float:
        """Some links."""
        return 60.0

    async def run(self, context: RunContext, step: PlannedStep) -> None:
        """Raises OperatorNeeded (PlaceNotAllowed, PlaceTaken, PlaceThroughLink), OSError."""
        assert context.deployment is not None
        context.committed = True
        await context.written()
        places = context.processes.surroundings.places(context.app)
        await asyncio.to_thread(places.check, context.spec.places)
        await asyncio.to_thread(build_view, context.deployment)
        await context.journal.mark(context.id, "place", durable=True)
        context.replaced = await asyncio.to_thread(context.deployments.linked, "current")
        context.put = True
        await asyncio.to_thread(context.deployments.link, "current", context.deployment)
        await asyncio.to_thread(places.settle, context.spec.places)

    async def undo(self, context: RunContext) -> None:
        """Go back to what was there before this run."""
        if context.switched or not context.put:
            return
        old = context.replaced
        await asyncio.to_thread(context.deployments.link, "current", old)
        places = context.processes.surroundings.places(context.app)
        await asyncio.to_thread(places.settle, old.spec.places if old is not None else ())


class After(Step):
    """Runs the command that tells others of the new files."""

    kind = "after"
    crash = Crash.REDO

    def deadline(self, context: RunContext) -> float:
        """A minute, and a margin for the stop."""
        return 90.0

    async def run(self, context: RunContext, step: PlannedStep) -> None:
        """Raises Permanent("AfterFailed"), Transient("Later")."""
        assert context.deployment is not None
        if context.instance is None:  # after a repair, which checks nothing
            name = new_id("i")
            context.instance = await context.processes.surroundings.instance(context.deployment, name)
        await context.processes.must(
            context.deployment, context.instance, "after", context.spec.after, 60.0, "AfterFailed"
        )


class Unplace(Step):
    """The app has a program now: what it placed before is taken away."""

    kind = "unplace"
    crash = Crash.RESUME
    shielded = True

    def deadline(self, context: RunContext) -> float:
        """Some links."""
        return 60.0

    async def run(self, context: RunContext, step: PlannedStep) -> None:
        """Raises OSError."""
        places = context.processes.surroundings.places(context.app)
        await asyncio.to_thread(places.settle, ())

"""Rest: a job's runs end, and none begins, until this update is through: never in the middle of a run."""

from __future__ import annotations

from agent.deploy.run import Crash, RunContext, Step
from agent.domain.model import PlannedStep


class Rest(Step):
    """Waits. Whoever comes first, the end of the update or a newer commit, lets runs begin again."""

    kind = "rest"
    crash = Crash.REDO

    def deadline(self, context: RunContext) -> float:
        """What the run under way may take with all its attempts, and a margin."""
        return context.jobs.longest() + 60.0

    async def run(self, context: RunContext, step: PlannedStep) -> None:
        """Returns when no run is under way."""
        context.stack.callback(context.jobs.resume)
        await context.jobs.rest(f"an update of {context.app} is under way")

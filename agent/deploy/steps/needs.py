"""Needs: the apps that this one needs serve before it starts."""

from __future__ import annotations

from typing import ClassVar

from agent.deploy.run import Crash, RunContext, Step
from agent.domain.errors import Failure, Transient
from agent.domain.model import PlannedStep


class Needs(Step):
    """Waits. That another app does not serve is nobody's fault here: the run is tried again later."""

    kind = "needs"
    crash = Crash.REDO
    late: ClassVar[type[Failure]] = Transient

    def deadline(self, context: RunContext) -> float:
        """Longer than what is waited for."""
        return 660.0

    async def run(self, context: RunContext, step: PlannedStep) -> None:
        """Raises Transient("NeedNotServing")."""
        if why := await context.ready(context.spec.needs):
            raise Transient("NeedNotServing", why, where="needs", remedy="see what keeps it from serving")

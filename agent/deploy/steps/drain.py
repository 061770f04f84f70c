"""Drain: what still waits at the old child is answered before anyone asks it to stop."""

from __future__ import annotations

import logging

from agent.deploy.run import Crash, RunContext, Step
from agent.domain.model import PlannedStep

log = logging.getLogger(__name__)


class Drain(Step):
    """Waits for the old side's accept queue and handshakes. Never fails a run: stragglers are taken over."""

    kind = "drain"
    crash = Crash.RESUME

    def deadline(self, context: RunContext) -> float:
        """The specification's own deadline and a margin."""
        return context.spec.drain.deadline + 10.0

    async def run(self, context: RunContext, step: PlannedStep) -> None:
        """Returns at the drain's deadline at the latest."""
        old = context.old
        if old is None or old.gate is None or old.gate is not context.gate:
            return  # ports that are given up stay the old child's until it is retired
        if not await old.gate.drained(old.side, context.spec.drain.deadline):
            log.warning("%s: connections still wait at the old child; they are taken over", context.app)

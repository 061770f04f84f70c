"""Verify: the artifact's digest is the one that was asked for."""

from __future__ import annotations

from agent.deploy.run import Crash, RunContext, Step
from agent.domain.errors import Transient
from agent.domain.model import PlannedStep


class Verify(Step):
    """Waits for the digest's verdict."""

    kind = "verify"
    crash = Crash.REDO
    late = Transient  # a slow disk is no fault of the specification

    def deadline(self, context: RunContext) -> float:
        """The digest is known with the last byte; what remains is a moment."""
        return 300.0

    async def run(self, context: RunContext, step: PlannedStep) -> None:
        """Raises Permanent("ChecksumMismatch")."""
        assert context.delivery is not None
        await context.delivery.verified()

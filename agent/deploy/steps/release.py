"""Unpack: the release's tree is whole, synced and in the store."""

from __future__ import annotations

import asyncio

from agent.deploy.journal_rows import ARTIFACT_SIGNED
from agent.deploy.run import Crash, RunContext, Step
from agent.domain.errors import Transient
from agent.domain.model import PlannedStep


class Release(Step):
    """Waits until the store has the tree; one that is there already is looked at, and put right."""

    kind = "release"
    crash = Crash.REDO
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
        assert context.spec.artifact is not None
        signers = context.artifacts.signatures.signers
        context.artifact_signer = await asyncio.to_thread(signers, context.spec.artifact)
        if context.artifact_signer:
            context.journal.mark(context.id, ARTIFACT_SIGNED, context.artifact_signer)

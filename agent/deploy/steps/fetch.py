"""Fetch: the artifact's bytes arrive, hashed and unpacked on the way."""

from __future__ import annotations

from agent.deploy.pinning import shares
from agent.deploy.run import Crash, RunContext, Step
from agent.deploy.services import AS_WANTED
from agent.domain.errors import Transient
from agent.domain.model import PlannedStep


class Fetch(Step):
    """Waits for the whole body. Verify and unpack observe later stages of the same delivery."""

    kind = "fetch"
    crash = Crash.REDO
    retries = 3
    late = Transient  # a slow line is no fault of the specification

    def deadline(self, context: RunContext) -> float:
        """Half an hour for the download, retries included."""
        return 1800.0

    async def run(self, context: RunContext, step: PlannedStep) -> None:
        """Start the delivery anew on each attempt. Raises Failure."""
        assert context.spec.artifact is not None
        delivery = context.artifacts.deliver(
            context.spec.artifact,
            context.app,
            lambda done, total: context.progress(step.name, done, total),
            share=shares(context.spec),
        )
        context.delivery = await context.stack.enter_async_context(delivery)
        size = await delivery.fetched()
        context.progress(step.name, size, size)
        moved = delivery.warning
        context.condition("TagMoved", bool(moved), "TagMoved" if moved else AS_WANTED, moved)

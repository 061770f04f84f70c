"""Check: the new pair is put together and looked at before the old one is touched."""

from __future__ import annotations

from agent.deploy.run import Crash, RunContext, Step
from agent.domain.model import PlannedStep, new_id


class Check(Step):
    """Begins to write the deployment, builds the instance, runs the files' checks and the init hook.

    The run itself removes the instance at its end, if no child was started in it.
    """

    kind = "check"
    crash = Crash.REDO

    def deadline(self, context: RunContext) -> float:
        """A minute a check, and the init hook's own time."""
        checks = sum(1 for file in context.spec.files if file.check)
        return 60.0 + 60.0 * checks + context.spec.hooks.timeout

    async def run(self, context: RunContext, step: PlannedStep) -> None:
        """Raises Permanent("CheckFailed"), Transient("Later"), OSError."""
        context.deployment = context.describe()
        context.instance = await context.processes.surroundings.instance(context.deployment, new_id("i"))
        for file in context.spec.files:
            if file.check:
                await context.processes.must(
                    context.deployment,
                    context.instance,
                    f"check of {file.target}",
                    file.check,
                    60.0,
                    "CheckFailed",
                )
        if context.first and context.spec.hooks.init:
            hooks = context.spec.hooks
            await context.processes.must(
                context.deployment, context.instance, "hook init", hooks.init, hooks.timeout, "HookFailed"
            )

"""Task: a command that the specification hung into the graph."""

from __future__ import annotations

from agent.deploy.run import Crash, RunContext, Step
from agent.domain.model import PlannedStep


class Task(Step):
    """Runs the command as the app's user in the new instance directory."""

    kind = "task"
    crash = Crash.REDO

    def deadline(self, context: RunContext) -> float:
        """The longest of the tasks' own timeouts, with its retries, and a margin for the stop."""
        return max((t.timeout * (t.retries + 1) for t in context.spec.tasks), default=60.0) + 30.0

    async def run(self, context: RunContext, step: PlannedStep) -> None:
        """Raises Permanent("TaskFailed"), Transient("Later")."""
        assert context.deployment is not None
        assert context.instance is not None
        task = next(t for t in context.spec.tasks if t.name == step.options["task"])
        for attempt in range(task.retries + 1):
            result = await context.processes.command(
                context.deployment, context.instance, step.name, task.command, task.timeout
            )
            if result.ok or result.later or attempt == task.retries:
                break
        context.processes.judge(result, step.name, "TaskFailed")

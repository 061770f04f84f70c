"""Migrate: a command that must succeed before the switch; once begun, the run ends before anything newer."""

from __future__ import annotations

from agent.deploy.run import RunContext, Step
from agent.domain.model import PlannedStep


class Migrate(Step):
    """Runs one migration command. It has to be idempotent: a run that is tried again runs it again."""

    kind = "migrate"
    shielded = True

    def deadline(self, context: RunContext) -> float:
        """The longest of the migrations' own timeouts and a margin for the stop."""
        return max((m.timeout for m in context.spec.migrate), default=600.0) + 30.0

    async def run(self, context: RunContext, step: PlannedStep) -> None:
        """Raises Permanent("MigrationFailed"), Transient("Later")."""
        assert context.deployment is not None
        assert context.instance is not None
        migration = next(m for m in context.spec.migrate if m.name == step.options["migration"])
        context.committed = True
        await context.journal.mark(context.id, step.name, durable=True)
        await context.processes.must(
            context.deployment,
            context.instance,
            step.name,
            migration.command,
            migration.timeout,
            "MigrationFailed",
        )

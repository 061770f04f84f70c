"""Probe: only a healthy child gets traffic."""

from __future__ import annotations

from agent.deploy.run import Crash, RunContext, Step
from agent.domain.model import PlannedStep


class Probe(Step):
    """Probes the new child, on the public port from a private source where the gate can steer it."""

    kind = "probe"
    crash = Crash.REDO

    def deadline(self, context: RunContext) -> float:
        """The specification's own deadline, and a margin that lets it speak first."""
        each = context.spec.health.deadline + context.spec.health.timeout + 10.0
        return each * (context.spec.run.instances if context.spec.run is not None else 1)

    async def run(self, context: RunContext, step: PlannedStep) -> None:
        """Raises Permanent("ProbeFailed" | "ChildExited") with the child's last lines."""
        child = context.child or context.serving.child
        assert child is not None
        crew = [child] if context.child is not None else context.serving.serving_crew(child)
        for each in crew:
            await context.processes.until_healthy(each, context.spec.health)

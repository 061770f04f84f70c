"""Migrate, contract and down: what is done to data; once begun, the run ends before anything newer."""

from __future__ import annotations

from typing import Any

from agent.deploy.ledger import release_of
from agent.deploy.migrating import Work, longest, up
from agent.deploy.run import Crash, RunContext, Step
from agent.deploy.way_back import WayBack, bring_forward, longest_way, take_back, way_back
from agent.domain.model import PlannedStep
from agent.domain.spec import MigrationSpec


class Migrate(Step):
    """Runs one migration. Undo takes back what is reversible, where the old pair needs it and may."""

    kind = "migrate"
    crash = Crash.RESUME
    shielded = True

    def deadline(self, context: RunContext) -> float:
        """What the slowest of them may take."""
        return max((longest(m) for m in context.spec.migrate), default=600.0) + 120.0

    def undo_deadline(self, context: RunContext) -> float:
        """What taking all back may take."""
        return longest_way(context.spec)

    async def run(self, context: RunContext, step: PlannedStep) -> None:
        """Raises Permanent (MigrationFailed), Transient, OperatorNeeded; OSError."""
        assert context.deployment is not None
        assert context.instance is not None
        migration = _of(context, step)
        context.committed = True
        ledger, current = context.journal.ledger, context.deployments.linked("current")
        if current is not None and not ledger.knows(context.app, release_of(current.pair)):
            await ledger.reach(context.app, release_of(current.pair))
        await context.written()  # the next agent has to know whose database to ask
        await context.journal.mark(context.id, step.name, durable=True)
        work = Work(
            processes=context.processes,
            ledger=ledger,
            deployment=context.deployment,
            instance=context.instance,
            progress=lambda done, total: context.progress(step.name, done, total, "files"),
            waits=lambda text: context.waits(step.name, text),
        )
        await up(work, migration, step.name)

    async def undo(self, context: RunContext) -> None:
        """Once for all of them, when nobody of the new version is left. Raises Failure, OSError."""
        old, brought = context.stopped_old, context.deployment
        if context.switched or context.taken_back or old is None or brought is None:
            return
        context.taken_back = True
        way = way_back(
            context.journal.ledger, context.app, release_of(old.pair), old.spec.version,
            brought.spec, brought.spec.down,
        )  # fmt: skip
        if way.downs:
            await take_back(context.processes, context.journal.ledger, brought, way, old.spec.version)


class Contract(Migrate):
    """Runs one migration after which no older version can run: nobody but what serves is left."""

    kind = "contract"
    crash = Crash.RESUME

    async def run(self, context: RunContext, step: PlannedStep) -> None:
        """Raises what Migrate raises."""
        serving = context.serving
        if serving.child is not None:
            side = 1 - serving.child.side
            for old in serving.others(side):
                if old.gate is not None and old.alive:
                    await old.gate.drained(old.side, old.deployment.spec.drain.deadline)
            await serving.clear(side)
        await super().run(context, step)

    async def undo(self, context: RunContext) -> None:
        """What serves stays, and nobody else is there."""


class Down(Step):
    """Takes back what the version that was stopped brought, from that version. Undo brings it again."""

    kind = "down"
    crash = Crash.RESUME
    shielded = True

    def deadline(self, context: RunContext) -> float:
        """What taking all back may take."""
        current = context.deployments.linked("current")
        return longest_way(current.spec if current is not None else context.spec)

    undo_deadline = deadline

    async def run(self, context: RunContext, step: PlannedStep) -> None:
        """Raises Failure, OSError."""
        context.committed = True
        leaving, way = context.deployments.linked("current"), self._way(context)
        assert leaving is not None
        if way.blocked:
            raise way.failure()
        context.taken_from, context.taken = leaving, way.downs
        await context.journal.mark(context.id, step.name, ", ".join(way.downs), durable=True)
        await take_back(
            context.processes, context.journal.ledger, leaving, way, context.spec.version,
            lambda name: context.waits(step.name, f"takes back {name}"),
        )  # fmt: skip

    @staticmethod
    def _way(context: RunContext) -> WayBack:
        current, release = context.deployments.linked("current"), context.release or context.spec.digest
        leaving = current.spec if current is not None else None
        allowed = context.spec.down or (leaving is not None and leaving.down)
        return way_back(context.journal.ledger, context.app, release, context.spec.version, leaving, allowed)

    async def undo(self, context: RunContext) -> None:
        """The version that was stopped is to serve again. Raises Failure, OSError."""
        if not context.switched and context.taken_from is not None:
            names = list(context.taken)
            await bring_forward(context.processes, context.journal.ledger, context.taken_from, names)


def _of(context: RunContext, step: PlannedStep) -> MigrationSpec:
    name: Any = step.options["migration"]
    return next(m for m in context.spec.migrate if m.name == name)
